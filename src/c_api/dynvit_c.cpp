#include <charconv>
#include <cstring>
#include <sstream>

#include "dynvit/core/error.hpp"
#include "dynvit/dynvit.h"
#include "dynvit/infer/classifier.hpp"
#include "dynvit/runtime/device.hpp"

struct dynvit_classifier {
    dynvit::Classifier classifier;
};

namespace {

using dynvit::Error;

thread_local std::string last_error;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): dynvit_error()

void keep(const char* text) noexcept {
    try {
        last_error.assign(text, std::strcspn(text, "\n"));
    } catch (...) {  // not even memory for that is left
        last_error.clear();
    }
}

// What `work` returns, or `failed` with the reason kept for dynvit_error: no exception may reach a caller in C.
template <class Work>
auto guarded(decltype(std::declval<Work>()()) failed, const Work& work) {
    try {
        last_error.clear();
        return work();
    } catch (const std::exception& error) {
        keep(error.what());
    } catch (...) {
        keep("unknown error");
    }
    return failed;
}

double number(const std::string& key, const std::string& value) {
    double parsed = 0;  // not by std::stod, which reads 0.7 as the caller's language writes it
    const char* const end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, parsed);
    if (error != std::errc() || stop != end) throw Error("options", key, ": found '", value, "', expected a number");
    return parsed;
}

// "0.5", or "0.48:0.46:0.41"
std::vector<double> colors(const std::string& key, const std::string& value) {
    std::vector<double> numbers;
    std::istringstream in(value);
    for (std::string part; std::getline(in, part, ':');) numbers.push_back(number(key, part));
    if (numbers.empty()) throw Error("options", key, ": found nothing, expected a number, or three between colons");
    return numbers;
}

std::int64_t pixels(const std::string& key, const std::string& value) {
    std::int64_t parsed = 0;
    const char* const end = value.data() + value.size();
    const auto [stop, error] = std::from_chars(value.data(), end, parsed);
    if (error != std::errc() || stop != end) throw Error("options", key, ": found '", value, "', expected pixels");
    return parsed;
}

// Whether it is one of those that say how pictures are prepared.
bool set_preprocessing(const std::string& key, const std::string& value, dynvit::PreprocessingChanges& changes) {
    if (key == "mean") {
        changes.mean = colors(key, value);
    } else if (key == "std") {
        changes.std = colors(key, value);
    } else if (key == "interpolation") {
        changes.interpolation = value;
    } else if (key == "crop") {
        changes.crop = value;
    } else if (key == "resize") {
        changes.resize = pixels(key, value);
    } else if (key == "crop_pct") {
        changes.crop_pct = number(key, value);
    } else {
        return false;
    }
    return true;
}

void set_option(const std::string& key, const std::string& value, dynvit::ClassifierOptions& options) {
    if (set_preprocessing(key, value, options.preprocessing)) return;
    if (key == "keep_ratio") {
        options.keep_ratio = number(key, value);
    } else if (key == "policy") {
        options.policy = value;
    } else if (key == "threshold") {
        options.thresholds = {number(key, value)};
    } else if (key == "device") {
        options.device = dynvit::parse_device(value);
    } else if (key == "precision") {
        options.precision = dynvit::parse_inference_precision(value);
    } else if (key == "model") {
        options.model = value;
    } else {
        throw Error("options", "found '", key,
                    "', expected keep_ratio, policy, threshold, device, precision, model, mean, std, interpolation, "
                    "crop, resize or crop_pct");
    }
}

dynvit::ClassifierOptions parse_options(const std::string& text) {
    dynvit::ClassifierOptions options;
    std::istringstream in(text);
    for (std::string part; std::getline(in, part, ',');) {
        const std::size_t equals = part.find('=');
        if (equals == std::string::npos) throw Error("options", "found '", part, "', expected KEY=VALUE");
        set_option(part.substr(0, equals), part.substr(equals + 1), options);
    }
    return options;
}

template <class Pointer>
void need(const Pointer* pointer, const char* name) {
    if (!pointer) throw Error("arguments", name, " is NULL");
}

std::int32_t classify(const dynvit_classifier* classifier, const dynvit::Image& picture, std::int32_t count,
                      std::int32_t* classes, float* probabilities) {
    if (count < 1) throw Error("arguments", "count: found ", count, ", expected at least 1");
    need(classes, "classes");
    need(probabilities, "probabilities");
    const dynvit::Classification found = classifier->classifier.classify(picture, count);
    for (std::size_t i = 0; i < found.classes.size(); ++i) {
        classes[i] = static_cast<std::int32_t>(found.classes[i].index);
        probabilities[i] = static_cast<float>(found.classes[i].probability);
    }
    return static_cast<std::int32_t>(found.classes.size());
}

}  // namespace

const char* dynvit_error(void) {
    return last_error.c_str();
}

dynvit_classifier* dynvit_open(const char* model_file, const char* options) {
    return guarded(static_cast<dynvit_classifier*>(nullptr), [&] {
        need(model_file, "model_file");
        return new dynvit_classifier{dynvit::Classifier(model_file, parse_options(options ? options : ""))};
    });
}

void dynvit_close(dynvit_classifier* classifier) {
    delete classifier;
}

int32_t dynvit_class_count(const dynvit_classifier* classifier) {
    return guarded(std::int32_t{-1}, [&] {
        need(classifier, "classifier");
        return static_cast<std::int32_t>(classifier->classifier.session().settings().num_classes);
    });
}

const char* dynvit_class_name(const dynvit_classifier* classifier, int32_t index) {
    return guarded(static_cast<const char*>(nullptr), [&]() -> const char* {
        need(classifier, "classifier");
        const std::int64_t count = classifier->classifier.session().settings().num_classes;
        if (index < 0 || index >= count) throw Error("arguments", "class ", index, ", expected 0 to ", count - 1);
        const std::vector<std::string>& names = classifier->classifier.class_names();
        return names.empty() ? "" : names[static_cast<std::size_t>(index)].c_str();
    });
}

int32_t dynvit_classify_file(const dynvit_classifier* classifier, const char* picture, int32_t count, int32_t* classes,
                             float* probabilities) {
    return guarded(std::int32_t{-1}, [&] {
        need(classifier, "classifier");
        need(picture, "picture");
        return classify(classifier, dynvit::read_image(picture), count, classes, probabilities);
    });
}

int32_t dynvit_classify_rgb(const dynvit_classifier* classifier, const uint8_t* pixels, int32_t width, int32_t height,
                            int32_t count, int32_t* classes, float* probabilities) {
    return guarded(std::int32_t{-1}, [&] {
        need(classifier, "classifier");
        need(pixels, "pixels");
        if (width < 1 || height < 1) throw Error("arguments", "a picture of ", width, " x ", height, " pixels");
        const std::size_t size = static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3;
        dynvit::Image picture;
        picture.width = width;
        picture.height = height;
        picture.pixels.assign(pixels, pixels + size);
        return classify(classifier, picture, count, classes, probabilities);
    });
}
