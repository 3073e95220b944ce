#include "copy_state.hpp"

#include <ATen/ATen.h>

#include "dynvit/core/error.hpp"
#include "dynvit/weights/state_dict.hpp"

namespace dynvit {

void copy_state(const TensorMap& from, const TensorMap& to, const std::string& file) {
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : to) {
        const auto found = from.find(name);
        if (found == from.end()) {
            throw Error("run", file, ": found no ", name, ", expected the state of this experiment's run");
        }
        if (found->second.sizes() != tensor.sizes()) {
            throw Error("run", file, ": ", name, ": found the shape ", shape_text(found->second.sizes()), ", expected ",
                        shape_text(tensor.sizes()));
        }
        tensor.copy_(found->second);
    }
}

}  // namespace dynvit
