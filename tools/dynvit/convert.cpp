// dynvit convert: weights from a PyTorch checkpoint, or from a safetensors file, to a safetensors file.
#include <ATen/ATen.h>

#include <map>
#include <string>
#include <vector>

#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/log.hpp"
#include "dynvit/io/weights_format.hpp"
#include "dynvit/runtime/device.hpp"
#include "dynvit/weights/canonical_weights.hpp"
#include "standard_output.hpp"

namespace dynvit::tool {
namespace {

struct Arguments {
    std::string in, out, precision;
    bool ema = false;
};

// Integers and truth values stay what they are.
void convert_precision(ModelFile& file, const std::string& precision) {
    const at::ScalarType type = parse_precision(precision);
    for (auto& [name, tensor] : file.weights) {
        if (!tensor.is_floating_point()) continue;
        const at::Tensor exact = computable(tensor);
        const at::Tensor converted = exact.to(type);
        if (exact.isfinite().logical_and(converted.isfinite().logical_not()).any().item<bool>()) {
            throw Error("convert", file.path.string(), ": ", name, " has values too large for ", precision,
                        "; try bfloat16");
        }
        tensor = converted;
    }
}

// What the file to be written cannot hold is left out, and what may be a mistake is said.
void check_what_is_written(ModelFile& file) {
    std::map<std::string, std::string> left_out = file.unread;
    std::vector<std::string> not_finite;
    for (const auto& [name, tensor] : file.weights) {
        if (!is_safetensors_type(tensor.scalar_type())) {
            left_out.emplace(name, str("its type is ", c10::toString(tensor.scalar_type()),
                                       ", which safetensors files do not hold"));
        } else if (tensor.is_floating_point() && !at::isfinite(computable(tensor)).all().item<bool>()) {
            not_finite.push_back(name);
        }
    }
    if (!not_finite.empty()) {
        log::warn(str(file.path.string(), ": ", not_finite.front(),
                      not_finite.size() > 1 ? str(" and ", not_finite.size() - 1, " more tensors hold") : " holds",
                      " numbers that are not finite"));
    }
    for (const auto& [name, reason] : left_out) file.weights.erase(name);
    for (const auto& [name, reason] : left_out) {
        const std::string line = str("tensor ", name, ": ", reason);
        if (file.weights.empty()) throw Error("convert", file.path.string(), ": ", line);
        log::warn(str(file.path.string(), ": left out: ", line));
    }
}

std::int64_t parameters(const TensorMap& weights) {
    std::int64_t count = 0;
    for (const auto& [name, tensor] : weights) count += tensor.numel();
    return count;
}

void run(const Arguments& arguments) {
    check_safetensors_ending(arguments.out, "convert");
    ModelFile file = read_model_file(arguments.in, {.part = arguments.ema ? "ema" : "", .recognize = false});
    check_what_is_written(file);
    if (!arguments.precision.empty()) convert_precision(file, arguments.precision);
    write_model_file(arguments.out, file.weights, file.settings, std::nullopt, file.preprocessing);
    const std::string line = str(arguments.out, ": ", file.weights.size(), " tensors, ", parameters(file.weights),
                                 " parameters", file.part.empty() ? "" : str(", from \"", file.part, '"'),
                                 file.skipped.empty() ? "" : "; skipped " + join(file.skipped, ", "));
    if (is_standard_output(arguments.out)) {
        log::info(line);  // not into the weights
    } else {
        print(line + '\n');
    }
}

}  // namespace

void add_convert(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = program.add_subcommand("convert", "Write a PyTorch checkpoint's weights as a safetensors file");
    command
        ->add_option("IN", arguments->in,
                     "PyTorch checkpoint (.pth, .pt, .bin; nothing in it is executed) or safetensors file")
        ->required();
    command->add_option("OUT", arguments->out, "safetensors file to write")->required();
    command->add_flag("--ema", arguments->ema,
                      "the weights' moving average, which training scripts keep under model_ema, "
                      "state_dict_ema or model_ema_state_dict");
    command->add_option("-p,--precision", arguments->precision,
                        "float32, bfloat16 or float16; as they are stored if not given");
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
