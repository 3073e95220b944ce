#include "dynvit/weights/bundle_settings.hpp"

#include "dynvit/core/error.hpp"

namespace dynvit {

void BundleSettings::fields(FieldVisitor& v) {
    v.field("version", version, "of this list", at_least(1));
    if (v.reads() && version != kVersion) {
        v.reject("version", str("found ", version, ", expected ", kVersion, ", which this dynvit knows"));
    }
    v.field("tokens_per_stage", plan.tokens, "patch tokens that each stage keeps; []: dense", at_least(0));
    v.field("resize", resize, "short side of a picture before the centre crop, pixels; 0: size / 0.875",
            between(0, 16384));
    v.field("class_names", class_names, "in index order; []: not known");
}

}  // namespace dynvit
