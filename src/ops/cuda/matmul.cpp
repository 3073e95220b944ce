#include "matmul.hpp"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cublasLt.h>
#include <ATen/cuda/CUDAGraphsUtils.cuh>

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <mutex>
#include <optional>
#include <vector>

#include "compute_capability.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/log.hpp"
#include "element_type_of_tensor.hpp"
#include "fastest_algorithms.hpp"

namespace dynvit::cuda {
namespace {

constexpr std::size_t kMostWorkspaceBytes = std::size_t{32} << 20;
constexpr int kProposals = 12;  // of which the fastest is taken
constexpr int kTimedRuns = 5;
constexpr std::int64_t kHalfStep = 8, kFloat8Step = 16;  // sizes of matrices that tensor cores read: 16 bytes
constexpr std::int8_t kFastFloat8 = 0;  // 1: sums of float8 products keep fewer bits than float32 in between

void check(cublasStatus_t status, const char* what) {
    TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, what, ": ", cublasLtGetStatusString(status));
}

// The largest power of two, up to cuBLASLt's assumption of 256 bytes, that the address is a multiple of.
std::uint32_t alignment(const at::Tensor& tensor) {
    std::uint32_t bytes = 256;
    while (reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % bytes != 0) bytes /= 2;
    return bytes;
}

// One of cuBLASLt's descriptors with its creation and destruction.
template <class Handle, cublasStatus_t (*Destroy)(Handle)>
class Descriptor {
  public:
    Descriptor() = default;
    ~Descriptor() {
        if (handle_) Destroy(handle_);
    }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    Handle* operator&() { return &handle_; }
    operator Handle() const { return handle_; }

  private:
    Handle handle_ = nullptr;
};
using Operation = Descriptor<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Descriptor<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Descriptor<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

cudaDataType_t data_type(const at::Tensor& tensor) {
    switch (tensor.scalar_type()) {
        case at::kFloat:
            return CUDA_R_32F;
        case at::kHalf:
            return CUDA_R_16F;
        case at::kFloat8_e4m3fn:
            return CUDA_R_8F_E4M3;
        default:
            return CUDA_R_16BF;
    }
}

std::int64_t batches(const at::Tensor& tensor) {
    return tensor.dim() == 3 ? tensor.size(0) : 1;
}

// A row-major matrix is to cuBLASLt a column-major one of its columns and rows, and out = op(a) op(b) is to it
// out^T = op(b)^T op(a)^T: our b is its A, our a is its B.
void describe(Layout& layout, const at::Tensor& matrix, std::int64_t batch) {
    TORCH_CHECK(matrix.stride(-1) == 1, "rows must be contiguous");
    check(cublasLtMatrixLayoutCreate(&layout, data_type(matrix), static_cast<std::uint64_t>(matrix.size(-1)),
                                     static_cast<std::uint64_t>(matrix.size(-2)), matrix.stride(-2)),
          "cublasLtMatrixLayoutCreate");
    if (batch == 1) return;
    const auto count = static_cast<std::int32_t>(batch);
    const std::int64_t stride = matrix.dim() == 3 ? matrix.stride(0) : 0;
    check(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof(count)), "batch");
    check(
        cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof(stride)),
        "batch stride");
}

template <class T>
void set(const Operation& operation, cublasLtMatmulDescAttributes_t attribute, const T& value) {
    check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof(value)),
          "cublasLtMatmulDescSetAttribute");
}

cublasLtEpilogue_t epilogue(const MatmulTerms& terms) {
    if (terms.row_sums.defined()) return CUBLASLT_EPILOGUE_BGRADB;
    if (terms.gelu_input.defined()) {
        return terms.bias.defined() ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    }
    if (terms.bias.defined()) return terms.gelu ? CUBLASLT_EPILOGUE_GELU_BIAS : CUBLASLT_EPILOGUE_BIAS;
    return terms.gelu ? CUBLASLT_EPILOGUE_GELU : CUBLASLT_EPILOGUE_DEFAULT;
}

// A product that is ready to run with any algorithm.
class Product {
  public:
    Product(const at::Tensor& out, const MatmulTerms& terms)
        : terms_(terms), out_(out), added_(terms.residual.defined() ? terms.residual : out) {
        const std::int64_t batch = batches(out);
        check(cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
        set(operation_, CUBLASLT_MATMUL_DESC_TRANSA, terms.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(operation_, CUBLASLT_MATMUL_DESC_TRANSB, terms.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
        set(operation_, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue(terms));
        if (terms.bias.defined()) set(operation_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, terms.bias.const_data_ptr());
        if (terms.row_sums.defined()) {
            set(operation_, CUBLASLT_MATMUL_DESC_BIAS_POINTER, terms.row_sums.mutable_data_ptr());
            set(operation_, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(CUDA_R_32F));
        }
        if (terms.gelu_input.defined()) {
            set(operation_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, terms.gelu_input.mutable_data_ptr());
            set(operation_, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, terms.gelu_input.stride(-2));
        }
        if (terms.a_scales.defined()) set_scales();
        describe(a_, terms.b, batch);
        describe(b_, terms.a, batch);
        describe(c_, added_, batch);
        describe(d_, out, batch);
    }

    cublasStatus_t run(const Algorithm& algorithm) const {
        const float one = 1.0f, beta = terms_.residual.defined() ? 1.0f : 0.0f;
        const at::Tensor workspace =
            at::empty({static_cast<std::int64_t>(algorithm.workspace_bytes)}, out_.options().dtype(at::kByte));
        return cublasLtMatmul(handle_, operation_, &one, terms_.b.const_data_ptr(), a_, terms_.a.const_data_ptr(), b_,
                              &beta, added_.const_data_ptr(), c_, out_.mutable_data_ptr(), d_, &algorithm.algorithm,
                              workspace.mutable_data_ptr(), algorithm.workspace_bytes, stream_);
    }

    // None where cuBLASLt can't do all of it at once.
    std::vector<Algorithm> proposals() const {
        Preference preference;
        check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
        check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                   &kMostWorkspaceBytes, sizeof(kMostWorkspaceBytes)),
              "workspace");
        const auto align = [&](cublasLtMatmulPreferenceAttributes_t attribute, const at::Tensor& tensor) {
            const std::uint32_t bytes = alignment(tensor);
            check(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &bytes, sizeof(bytes)), "alignment");
        };
        align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, terms_.b);
        align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, terms_.a);
        align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, added_);
        align(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out_);
        std::array<cublasLtMatmulHeuristicResult_t, kProposals> found{};
        int count = 0;
        const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, operation_, a_, b_, c_, d_, preference,
                                                                     kProposals, found.data(), &count);
        if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) return {};
        check(status, "cublasLtMatmulAlgoGetHeuristic");
        std::vector<Algorithm> algorithms;
        for (int i = 0; i < count; ++i) {
            const cublasLtMatmulHeuristicResult_t& one = found[static_cast<std::size_t>(i)];
            if (one.state == CUBLAS_STATUS_SUCCESS) algorithms.push_back({one.algo, one.workspaceSize});
        }
        return algorithms;
    }

    // Milliseconds of the fastest of a few runs; infinite where it can't run.
    float time(const Algorithm& algorithm) const {
        float fastest = std::numeric_limits<float>::infinity();
        for (int i = 0; i <= kTimedRuns; ++i) {
            at::cuda::CUDAEvent start(cudaEventDefault), end(cudaEventDefault);
            start.record(stream_);
            if (run(algorithm) != CUBLAS_STATUS_SUCCESS) return std::numeric_limits<float>::infinity();
            end.record(stream_);
            end.synchronize();
            if (i > 0) fastest = std::min(fastest, start.elapsed_time(end));  // the first one warms up
        }
        return fastest;
    }

  private:
    // A factor for each row that is multiplied, of a and of b.
    void set_scales() {
#if CUBLAS_VERSION >= 120900
        constexpr auto kOfEachRow = static_cast<std::int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
        set(operation_, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, kOfEachRow);
        set(operation_, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, kOfEachRow);
        set(operation_, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, terms_.b_scales.const_data_ptr());
        set(operation_, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, terms_.a_scales.const_data_ptr());
        set(operation_, CUBLASLT_MATMUL_DESC_FAST_ACCUM, kFastFloat8);
#else
        TORCH_CHECK(false, "products of float8 need cuBLASLt 12.9 or newer");
#endif
    }

    const MatmulTerms& terms_;
    const at::Tensor& out_;
    const at::Tensor added_;
    Operation operation_;
    Layout a_, b_, c_, d_;  // cuBLASLt's names
    const cublasLtHandle_t handle_ = at::cuda::getCurrentCUDABlasLtHandle();
    const c10::cuda::CUDAStream stream_ = c10::cuda::getCurrentCUDAStream();
};

// Numbers of rows that share an algorithm: those of a packed batch are others each time.
std::int64_t near_size(std::int64_t rows) {
    constexpr std::int64_t kFewRows = 512;
    constexpr int kLeadingBits = 4;
    if (rows <= kFewRows) return rows;
    const int dropped = std::bit_width(static_cast<std::uint64_t>(rows)) - kLeadingBits;
    return rows >> dropped << dropped;
}

// @param exact whether near numbers of rows are to have keys of their own
ProductKey key_of(const at::Tensor& out, const MatmulTerms& terms, bool exact) {
    const std::int64_t batch = batches(out);
    const std::int64_t kind = terms.transpose_a + 2 * terms.transpose_b + 4 * terms.gelu + 8 * terms.bias.defined() +
                              16 * terms.residual.defined() + 32 * terms.row_sums.defined() +
                              64 * terms.gelu_input.defined();
    return {out.device().index(),
            static_cast<std::int64_t>(terms.a.scalar_type()),
            static_cast<std::int64_t>(out.scalar_type()),
            kind,
            exact,
            batch,
            exact || batch > 1 ? out.size(-2) : near_size(out.size(-2)),
            out.size(-1),
            terms.transpose_a ? terms.a.size(-2) : terms.a.size(-1),
            terms.a.stride(-2),
            terms.b.stride(-2),
            out.stride(-2),
            batch > 1 ? terms.a.stride(0) : 0,
            batch > 1 ? out.stride(0) : 0,
            alignment(terms.a),
            alignment(terms.b),
            alignment(out),
            terms.residual.defined() ? alignment(terms.residual) : 0};
}

// A matrix of random numbers, laid out as this one.
at::Tensor random_like(const at::Tensor& matrix) {
    const at::Generator generator = at::make_generator<at::CUDAGeneratorImpl>(matrix.device().index());
    const at::Tensor values =
        at::empty(matrix.sizes(), matrix.options().dtype(at::kBFloat16)).normal_(0.0, 1.0, generator);
    return at::empty_strided(matrix.sizes(), matrix.strides(), matrix.options()).copy_(values);
}

// What a product has written, bit by bit.
std::vector<at::Tensor> bits_of(const at::Tensor& out, const MatmulTerms& terms) {
    std::vector<at::Tensor> bits;
    for (const at::Tensor& tensor : {out, terms.gelu_input, terms.row_sums}) {
        if (tensor.defined()) bits.push_back(tensor.view(tensor.element_size() == 2 ? at::kShort : at::kInt).clone());
    }
    return bits;
}

// The fastest of those that give the first one's numbers to the last bit: which one that is depends on the clock, what
// comes out must not. Random operands stand in for the product's own, as many zeros would say little of either.
// @param proposals at least one
Choice fastest_of(const at::Tensor& out, const MatmulTerms& terms, const std::vector<Algorithm>& proposals) {
    MatmulTerms sample = terms;
    sample.a = random_like(terms.a);
    sample.b = random_like(terms.b);
    const Product product(out, sample);
    const auto same = [](const at::Tensor& x, const at::Tensor& y) { return x.equal(y); };
    std::vector<at::Tensor> expected;
    Choice choice;
    float least = std::numeric_limits<float>::infinity();
    for (const Algorithm& algorithm : proposals) {
        const float time = product.time(algorithm);
        if (time >= least) continue;
        const std::vector<at::Tensor> bits = bits_of(out, terms);
        if (expected.empty()) expected = bits;
        if (!std::ranges::equal(bits, expected, same)) continue;
        least = time;
        choice = algorithm;
    }
    return choice;
}

std::string description(const at::Tensor& out, const MatmulTerms& terms) {
    return dynvit::str("a product of ", terms.a.sizes(), " and ", terms.b.sizes(), " in ", terms.a.scalar_type(),
                       terms.a_scales.defined() ? " with scales" : "", terms.bias.defined() ? ", a bias" : "",
                       terms.gelu ? ", GELU" : "", terms.residual.defined() ? ", a residual" : "", " to ",
                       out.scalar_type());
}

// Does after the product what no algorithm does inside.
void multiply_in_steps(const at::Tensor& out, const MatmulTerms& terms) {
    MatmulTerms alone = terms;
    if (terms.row_sums.defined()) {
        alone.row_sums = at::Tensor();
        matmul(out, alone);
        at::sum_out(const_cast<at::Tensor&>(terms.row_sums), terms.a, {terms.transpose_a ? 0 : 1}, false, at::kFloat);
        return;
    }
    TORCH_CHECK(terms.a_scales.defined() && terms.residual.defined(), "cuBLASLt has no algorithm for ",
                description(out, terms));
    static std::once_flag told;
    std::call_once(told, [&] {
        log::warn(
            dynvit::str("cuBLASLt has no algorithm for ", description(out, terms), ": residuals are added afterwards"));
    });
    alone.residual = at::Tensor();
    matmul(out, alone);
    out.add_(terms.residual);
}

// Made at the first product with this key.
Choice choice_of(const Product& product, const at::Tensor& out, const MatmulTerms& terms, bool exact) {
    const ProductKey key = key_of(out, terms, exact);
    FastestAlgorithms& fastest = FastestAlgorithms::of_this_process();
    if (const std::optional<Choice> known = fastest.find(key)) return *known;
    Choice choice;
    const std::vector<Algorithm> proposals = product.proposals();
    const bool recording = at::cuda::currentStreamCaptureStatusMayInitCtx() != at::cuda::CaptureStatus::None;
    if (!proposals.empty()) choice = recording ? proposals.front() : fastest_of(out, terms, proposals);
    if (!recording) fastest.insert(key, choice);  // nothing can be timed in a recording
    return choice;
}

// Whether tensor cores take a weight of a half type of such sizes.
bool takes_sizes(std::int64_t inputs, std::int64_t outputs) {
    return inputs % kHalfStep == 0 && outputs % kHalfStep == 0;
}

}  // namespace

bool multiplies_float8(const at::Device& device) {
    return CUBLAS_VERSION >= 120900 && compute_capability(device) == 90;
}

bool float8_matmul_supports(const at::Tensor& weight) {
    return multiplies_float8(weight.device()) && weight.size(0) % kFloat8Step == 0 && weight.size(1) % kFloat8Step == 0;
}

std::string why_no_matmul(std::int64_t inputs, std::int64_t outputs) {
    if (takes_sizes(inputs, outputs)) return {};
    return dynvit::str("found ", inputs, " inputs and ", outputs, " outputs, ours take multiples of ", kHalfStep);
}

bool matmul_supports(const at::Tensor& weight, at::ScalarType type) {
    return kernels_run_on(weight.device()) && is_half(type) && takes_sizes(weight.size(1), weight.size(0));
}

void matmul(const at::Tensor& out, const MatmulTerms& terms) {
    const c10::cuda::CUDAGuard device(out.device());
    const Product product(out, terms);
    Choice choice = choice_of(product, out, terms, /*exact=*/false);
    if (choice) {
        if (product.run(*choice) == CUBLAS_STATUS_SUCCESS) return;
        choice = choice_of(product, out, terms, /*exact=*/true);  // what serves a near size may not serve here
    }
    if (choice) return check(product.run(*choice), "cublasLtMatmul");
    multiply_in_steps(out, terms);
}

}  // namespace dynvit::cuda
