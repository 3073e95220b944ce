// A configuration: YAML text and, each behind a zero byte, changes as --set takes them.
#include "dynvit/core/config.hpp"
#include "dynvit/core/text.hpp"
#include "fuzz.hpp"

using namespace dynvit;

namespace {

/// A field of each kind, under names that the files of configs/ have.
struct Settings {
    struct Data {
        bool labelled = true;
        std::string root, interpolation = "bicubic";
        std::vector<std::string> train_folders;
        std::vector<double> mean;

        void fields(FieldVisitor& visitor) {
            visitor.field("labelled", labelled, "");
            visitor.field("root", root, "");
            visitor.field("interpolation", interpolation, "", {"bicubic", "bilinear"});
            visitor.field("train_folders", train_folders, "");
            visitor.field("mean", mean, "");
        }
    };
    struct Model {
        std::int64_t num_classes = 0;
        std::vector<std::int64_t> pruning_loc;
        double keep_ratio = 1;

        void fields(FieldVisitor& visitor) {
            visitor.field("num_classes", num_classes, "");
            visitor.field("pruning_loc", pruning_loc, "", {0, 100});
            visitor.field("keep_ratio", keep_ratio, "", {0, 1});
            if (keep_ratio < 1 && pruning_loc.empty()) visitor.reject("keep_ratio", "found no stage", {"pruning_loc"});
        }
    };
    Data data;
    Model model;
    std::string name;

    void fields(FieldVisitor& visitor) {
        visitor.field("name", name, "");
        visitor.section("data", data, "");
        visitor.section("model", model, "");
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view rest = fuzz::text_of({data, size});
    const auto take = [&rest] {
        const std::string part(rest.substr(0, rest.find('\0')));
        rest.remove_prefix(std::min(part.size() + 1, rest.size()));
        return part;
    };
    ConfigSource source{.text = take(), .overrides = {}};
    while (!rest.empty()) source.overrides.push_back(take());
    fuzz::run([&] {
        const std::string written = write_config(read_config<Settings>(source));
        const std::string again = write_config(read_config<Settings>({.text = written, .overrides = {}}));
        fuzz::expect(written == again, "what is written is read to the same values");
    });
    return 0;
}
