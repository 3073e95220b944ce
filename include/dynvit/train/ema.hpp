// A running average of the weights, which often evaluates better than the weights themselves.
#pragma once

#include "dynvit/core/fields.hpp"
#include "dynvit/models/dynamic_vit.hpp"

namespace dynvit {

struct EmaSettings {
    double decay = 0.0;
    bool warmup = true;

    void fields(FieldVisitor& v) {
        v.field("decay", decay, "share of the average that a step leaves; 0: no average", between(0, 0.9999999));
        v.field("warmup", warmup, "a smaller decay at first, (1 + steps) / (10 + steps): short runs need it");
    }

    bool on() const { return decay > 0; }
};

/// Exponential moving average of a model's weights (Polyak and Juditsky, 1992). Like timm's ModelEmaV3 it averages
/// parameters and those buffers that hold floating-point numbers; other buffers are copied.
class Ema {
  public:
    /// Starts from the model's present weights, on its device.
    Ema(const DynamicVitImpl& model, const EmaSettings& settings);

    /// average = decay average + (1 - decay) weights.
    /// @param steps steps done before this one
    void update(const DynamicVitImpl& model, std::int64_t steps);

    /// A model with the averaged weights.
    DynamicVit average() const { return average_; }

  private:
    EmaSettings settings_;
    DynamicVit average_;
};

}  // namespace dynvit
