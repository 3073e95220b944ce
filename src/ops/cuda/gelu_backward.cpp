#include "gelu_backward.hpp"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "element_type_of_tensor.hpp"
#include "gelu_backward.cuh"

namespace dynvit::cuda {

GeluGradients gelu_backward(const at::Tensor& input, const at::Tensor& to_output) {
    const c10::cuda::CUDAGuard device(input.device());
    const int rows = static_cast<int>(input.size(0)), columns = static_cast<int>(input.size(1));
    const auto floats = input.options().dtype(at::kFloat);
    const at::Tensor partial = at::empty({gelu_backward_partials(rows, columns), columns}, floats);
    GeluGradients gradients{at::empty_like(input), to_output, at::empty({columns}, floats)};
    C10_CUDA_CHECK(gelu_backward({.element = element_of(input.scalar_type()),
                                  .rows = rows,
                                  .columns = columns,
                                  .input = input.const_data_ptr(),
                                  .to_output = to_output.const_data_ptr(),
                                  .output = gradients.output.mutable_data_ptr(),
                                  .to_input = gradients.to_input.mutable_data_ptr(),
                                  .partial = partial.mutable_data_ptr<float>(),
                                  .to_input_sums = gradients.to_input_sums.mutable_data_ptr<float>()},
                                 c10::cuda::getCurrentCUDAStream()));
    return gradients;
}

}  // namespace dynvit::cuda
