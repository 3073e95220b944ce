// Classifies pictures with a pruned model: classify MODEL PICTURE...
// MODEL is what `dynvit train` or `dynvit export --format bundle` wrote; a picture is a JPEG, PNG, WebP, GIF, BMP or
// TIFF.
#include <dynvit/core/error.hpp>
#include <dynvit/infer/classifier.hpp>

#include <cstdio>

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: classify MODEL PICTURE...\n");
        return 2;
    }
    try {
        // Reads the file and lays the weights out for this processor. {.device = at::kCUDA} would take the GPU.
        const dynvit::Classifier classifier(argv[1], {.precision = at::kFloat});
        std::printf("%.2f GMACs a picture\n", classifier.session().gmacs());
        for (int i = 2; i < argc; ++i) {
            const dynvit::Classification found = classifier.classify(dynvit::read_image(argv[i]), /*top=*/3);
            std::printf("%s\n", argv[i]);
            for (const dynvit::ClassScore& score : found.classes) {
                std::printf("  %5.1f %%  class %lld %s\n", 100 * score.probability, static_cast<long long>(score.index),
                            score.name.c_str());
            }
            for (const auto& stage : found.kept) std::printf("  %zu patches kept\n", stage.size());
        }
    } catch (const dynvit::Error& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
}
