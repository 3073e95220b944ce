#include "dynvit/train/autocast.hpp"

#include <ATen/autocast_mode.h>

namespace dynvit {

Autocast::Autocast(const at::Device& device, at::ScalarType precision)
    : device_(device.type()),
      previous_type_(at::autocast::get_autocast_dtype(device_)),
      active_(precision != at::kFloat) {
    if (!active_) return;
    previous_ = at::autocast::is_autocast_enabled(device_);
    at::autocast::set_autocast_enabled(device_, true);
    at::autocast::set_autocast_dtype(device_, precision);
    at::autocast::increment_nesting();
}

Autocast::~Autocast() {
    if (!active_) return;
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device_, previous_);
    at::autocast::set_autocast_dtype(device_, previous_type_);
}

}  // namespace dynvit
