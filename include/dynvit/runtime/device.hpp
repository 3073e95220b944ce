// Devices and number types by name.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <string>
#include <vector>

namespace dynvit {

/// "cpu", "cuda", "cuda:1", or "auto": the GPU if there is one. Throws Error if it isn't there.
at::Device parse_device(const std::string& name);

/// "float32", "bfloat16" or "float16". Throws Error for others.
at::ScalarType parse_precision(const std::string& name);

/// The same, "int8", kQInt8, and "float8", kFloat8_e4m3fn: what inference computes in, see InferenceModel.
const std::vector<std::string>& inference_precisions();
at::ScalarType parse_inference_precision(const std::string& name);

}  // namespace dynvit
