#include "dynvit/viz/stage_panels.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>

#include "dynvit/core/error.hpp"
#include "dynvit/viz/heat_map.hpp"
#include "dynvit/viz/kept_tokens.hpp"

namespace dynvit {
namespace {

constexpr int kPanelWidth = 192;  // smaller pictures are enlarged to about this many pixels

}  // namespace

ReadPictures sample_pictures(const DataSettings& data, const ModelSettings& model, std::int64_t count) {
    const auto dataset = make_dataset(data, Split::kVal, model.image_height(), model.image_width());
    const SampleTransform transform = make_transform(data, Split::kVal, model.image_height(), model.image_width());
    const std::size_t size = dataset->size(), taken = std::min(size, static_cast<std::size_t>(count));
    ReadPictures read;
    Random unused(0);
    for (std::size_t i = 0; i < taken; ++i) {
        try {
            Sample sample = dataset->get(i * size / taken + i % (size / taken));
            const std::string name = std::filesystem::path(sample.name).stem().string();
            read.pictures.push_back({name, transform(sample, unused)});
        } catch (const Error& error) {
            read.left_out.emplace_back(error.what());
        }
    }
    return read;
}

void make_names_unique(std::vector<NamedImage>& pictures, std::set<std::string> taken) {
    for (NamedImage& picture : pictures) {
        const std::string name = picture.name;
        for (int copy = 2; !taken.insert(picture.name).second; ++copy) picture.name = str(name, '~', copy);
    }
}

StagePanels draw_stages(const InferenceSession& session, const Image& picture) {
    const ModelSettings& settings = session.settings();
    const at::Tensor images = normalize_images(stack_images({picture}), session.device(), session.preprocessing());
    StagePanels drawn;
    std::vector<Image> panels = {picture};
    if (settings.deletes() || session.plan().dense() || !keeps_tokens(session.policy())) {
        const SessionOutput result = session.run(images);
        for (std::size_t s = 0; s < result.kept.size(); ++s) {
            drawn.kept.push_back(result.kept_of(0, s, settings.patches()));
            panels.push_back(draw_kept_tokens(picture, drawn.kept.back(), settings));
        }
    } else {
        for (const at::Tensor& stage : session.sources(images)) {
            const at::Tensor row = stage[0].cpu().contiguous();
            const auto* places = row.const_data_ptr<std::int64_t>();
            const std::vector<std::int64_t> sources(places, places + row.numel());
            drawn.kept.emplace_back();
            for (std::int64_t i = 0; i < std::ssize(sources); ++i) {
                if (sources[static_cast<std::size_t>(i)] == i) drawn.kept.back().push_back(i);
            }
            panels.push_back(draw_token_groups(picture, sources, settings));
        }
    }
    const int factor = std::max(1, kPanelWidth / picture.width);
    for (Image& panel : panels) panel = enlarge(panel, factor);
    drawn.row = beside(panels);
    return drawn;
}

Image draw_keep_frequencies(const std::vector<std::vector<std::int64_t>>& counts, std::int64_t pictures,
                            const ModelSettings& settings) {
    std::vector<Image> maps;
    for (const std::vector<std::int64_t>& stage : counts) {
        std::vector<float> shares;
        for (const std::int64_t count : stage)
            shares.push_back(static_cast<float>(count) / static_cast<float>(pictures));
        maps.push_back(draw_heat_map(shares, static_cast<int>(settings.grid_height()),
                                     static_cast<int>(settings.grid_width()), kPanelWidth));
    }
    return beside(maps);
}

}  // namespace dynvit
