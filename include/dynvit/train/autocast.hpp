// Half precision for the work inside a scope.
#pragma once

#include <ATen/core/Tensor.h>

namespace dynvit {

/// Inside its lifetime, matrix products on the device run in bfloat16 or float16. Nothing happens for kFloat.
class Autocast {
  public:
    Autocast(const at::Device& device, at::ScalarType precision);
    ~Autocast();
    Autocast(const Autocast&) = delete;
    Autocast& operator=(const Autocast&) = delete;

  private:
    at::DeviceType device_;
    at::ScalarType previous_type_;
    bool active_;
    bool previous_ = false;
};

}  // namespace dynvit
