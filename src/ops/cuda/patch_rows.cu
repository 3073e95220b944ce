#include "patch_rows.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "element_dispatch.cuh"
#include "overlap.cuh"
#include "vector_elements.cuh"

namespace dynvit::cuda {
namespace {

constexpr int kThreads = 256;

// A thread takes eight pixels beside each other; neighbours read neighbours.
template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    to_rows(PatchShape s, PatchScaling scaling, const From* images, To* rows, long long vectors) {
    let_next_begin();
    wait_for_previous();
    const long long vector = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (vector >= vectors) return;
    const int x = static_cast<int>(vector % (s.width / 8)) * 8;
    const long long line = vector / (s.width / 8);  // (b * 3 + c) * H + y
    const int y = static_cast<int>(line % s.height), c = static_cast<int>(line / s.height % 3);
    const long long b = line / s.height / 3;

    float values[8];
    load8(images + vector * 8, values);
    const float scale = c == 0 ? scaling.scale[0] : c == 1 ? scaling.scale[1] : scaling.scale[2];
    const float shift = c == 0 ? scaling.shift[0] : c == 1 ? scaling.shift[1] : scaling.shift[2];
    for (float& value : values) value = value * scale + shift;

    const int p = s.patch, across = s.width / p;
    const long long row = (b * (s.height / p) + y / p) * across + x / p;
    store8(rows + ((row * 3 + c) * p + y % p) * p + x % p, values);
}

// Of any patch size: a thread writes eight values beside each other of a row, `width` wide.
template <class From, class To>
__global__ void __launch_bounds__(kThreads)
    to_padded_rows(PatchShape s, PatchScaling scaling, const From* images, To* rows, int width, long long vectors) {
    let_next_begin();
    wait_for_previous();
    const long long vector = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x;
    if (vector >= vectors) return;
    const int first = static_cast<int>(vector % (width / 8)) * 8, p = s.patch;
    const long long row = vector / (width / 8);  // (b * H / P + i) * W / P + j
    const int across = s.width / p, down = s.height / p;
    const int left = static_cast<int>(row % across) * p, top = static_cast<int>(row / across % down) * p;
    const From* const image = images + row / across / down * 3 * s.height * s.width;

    float values[8];
    for (int i = 0; i < 8; ++i) {
        const int place = first + i, c = place / (p * p), y = place / p % p, x = place % p;
        values[i] = 0;
        if (c < 3) {
            const float pixel =
                static_cast<float>(image[(static_cast<long long>(c) * s.height + top + y) * s.width + left + x]);
            values[i] = pixel * scaling.scale[c] + scaling.shift[c];
        }
    }
    store8(rows + vector * 8, values);
}

template <class From>
cudaError_t launch(Element element, PatchShape s, const PatchScaling& scaling, const void* images, void* rows,
                   cudaStream_t stream) {
    const bool whole_vectors = s.patch % 8 == 0;  // then eight pixels beside each other are of one row
    const int width = (3 * s.patch * s.patch + 7) / 8 * 8;
    const long long patches = static_cast<long long>(s.batch) * (s.height / s.patch) * (s.width / s.patch);
    const long long vectors = whole_vectors ? 3LL * s.batch * s.height * s.width / 8 : patches * (width / 8);
    const dim3 grid(static_cast<unsigned>((vectors + kThreads - 1) / kThreads));
    return with_half_type(element, [&](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const auto* const from = static_cast<const From*>(images);
        auto* const to = static_cast<T*>(rows);
        if (whole_vectors) {
            return launch_overlapping(to_rows<From, T>, grid, kThreads, 0, stream, s, scaling, from, to, vectors);
        }
        return launch_overlapping(to_padded_rows<From, T>, grid, kThreads, 0, stream, s, scaling, from, to, width,
                                  vectors);
    });
}

}  // namespace

cudaError_t patch_rows(Pixel pixel, Element element, PatchShape shape, const PatchScaling& scaling, const void* images,
                       void* rows, cudaStream_t stream) {
    switch (pixel) {
        case Pixel::kByte:
            return launch<unsigned char>(element, shape, scaling, images, rows, stream);
        case Pixel::kFloat:
            return launch<float>(element, shape, scaling, images, rows, stream);
        case Pixel::kHalf:
            return launch<__half>(element, shape, scaling, images, rows, stream);
        default:
            return launch<__nv_bfloat16>(element, shape, scaling, images, rows, stream);
    }
}

}  // namespace dynvit::cuda
