#include "dynvit/export/onnx.hpp"

#include <ATen/ATen.h>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/models/rotary_positions.hpp"
#include "dynvit/weights/state_dict.hpp"
#include "onnx/onnx_model.hpp"

namespace dynvit {

#ifdef DYNVIT_ONNX

void export_onnx(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options) {
    AtomicFile file(path, "export");
    TensorMap tensors = state_dict(*model);
    if (const at::Tensor table = rotary_table(model->settings()); table.defined()) tensors.emplace(kRotaryTable, table);
    std::map<std::string, WeightView> weights;
    for (auto& [name, tensor] : tensors) {
        tensor = tensor.to(at::kCPU, at::kFloat).contiguous();
        weights[name] = {tensor.sizes().vec(), tensor.const_data_ptr<float>()};
    }
    const std::string bytes = onnx_model(model->settings(), options, weights);
    file.write(bytes.data(), bytes.size());
    check_onnx(file.temporary(), path);
    file.commit();
}

#else

void export_onnx(const std::filesystem::path& path, DynamicVit, const ExportOptions&) {
    throw Error("export", path.string(),
                ": this dynvit was built without ONNX; install libonnx-dev and libprotobuf-dev, and build it again");
}

#endif

}  // namespace dynvit
