#include "dynvit/infer/eval_report.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "dynvit/core/error.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/infer/nearest_neighbours.hpp"

namespace dynvit {
nlohmann::json eval_json(const EvalResult& r) {
    nlohmann::json row = {
        {"policy", r.policy}, {"keep_ratio", r.keep_ratio},           {"images", r.images},
        {"gmacs", r.gmacs},   {"gmacs_per_stage", r.gmacs_per_stage}, {"tokens_per_stage", r.tokens_per_stage}};
    if (r.labelled && r.multi_label) {
        row.update({{"map", r.map}, {"map_classes", r.map_classes}, {"loss", r.loss}});
        if (r.paired()) row["drop"] = r.map_lost;
    } else if (r.labelled) {
        row.update({{"top1_count", r.top1_count},
                    {"top5_count", r.top5_count},
                    {"top1", r.top1()},
                    {"top5", r.top5()},
                    {"loss", r.loss}});
    }
    if (r.paired() && r.labelled && !r.multi_label) {
        row["drop"] = r.drop();
        row["drop_error"] = r.drop_error();
    }
    if (r.paired()) row["cosine"] = r.cosine;
    if (r.has_knn()) row.update({{"knn_count", r.knn_count}, {"knn_top1", r.knn()}});
    if (r.paired() && r.classifies) {
        row["agree"] = r.agree;
        row["kl"] = r.kl;
    }
    if (!r.thresholds.empty()) {
        row["thresholds"] = r.thresholds;
        row["tokens_spread_per_stage"] = r.spread;
    }
    if (!r.object_kept_per_stage.empty()) row["object_kept_per_stage"] = r.object_kept_per_stage;
    return row;
}

nlohmann::json neighbours_json(const NeighbourBank& bank) {
    return {{"k", bank.neighbours()}, {"pictures", bank.size()}, {"classes", bank.classes()}};
}

namespace {

// How the images of a row with an own number in each differ; "" for others.
std::string spread_text(const EvalResult& r) {
    std::string text;
    for (std::size_t s = 0; s < r.spread.size(); ++s) {
        text += str(r.policy, ' ', fixed(r.keep_ratio, 2), ", stage ", s + 1, ": pi_keep > ", fixed(r.thresholds[s], 4),
                    " keeps ", r.spread[s][0], " to ", r.spread[s][4], " tokens, quartiles ", r.spread[s][1], ", ",
                    r.spread[s][2], ", ", r.spread[s][3], '\n');
    }
    return text;
}

// A row whose figures mean nothing; "" for others.
std::string unusable_text(const EvalResult& r) {
    if (r.finite()) return "";
    return str(r.policy, ' ', fixed(r.keep_ratio, 2),
               ": outputs are not finite (NaN or infinity), its figures mean nothing\n");
}

// Of pictures without labels, or a model without a head: what can be said is how far each row agrees with the dense
// model.
std::string agreement_table(const std::vector<EvalResult>& results) {
    const bool neighbours = std::ranges::any_of(results, &EvalResult::has_knn);
    const auto line = [&](const std::string& policy, const std::string& ratio, const std::string& images,
                          const std::string& agree, const std::string& kl, const std::string& cosine,
                          const std::string& knn, const std::string& gmacs, const std::string& tokens) {
        char text[192];
        std::snprintf(text, sizeof text, "%-13s %6s %7s %8s %9s %7s%s %7s  %s\n", policy.c_str(), ratio.c_str(),
                      images.c_str(), agree.c_str(), kl.c_str(), cosine.c_str(),
                      neighbours ? str(std::string(9 - std::min<std::size_t>(9, knn.size()), ' '), knn).c_str() : "",
                      gmacs.c_str(), tokens.c_str());
        return std::string(text);
    };
    std::string table =
        line("policy", "ratio", "images", "agree %", "KL, nats", "cosine", "k-NN %", "GMACs", "kept tokens");
    for (const EvalResult& r : results) {
        const bool classes = r.paired() && r.classifies;
        table += line(r.policy, fixed(r.keep_ratio, 2), str(r.images), classes ? fixed(r.agreement(), 2) : "",
                      classes ? fixed(r.kl, 4) : "", r.paired() ? fixed(r.cosine, 4) : "",
                      r.has_knn() ? fixed(r.knn(), 2) : "", fixed(r.gmacs, 3),
                      r.tokens_per_stage.empty() ? "all" : join(r.tokens_per_stage, "/"));
    }
    for (const EvalResult& r : results) table += spread_text(r) + unusable_text(r);
    return table;
}

}  // namespace

std::string eval_table(const std::vector<EvalResult>& results) {
    if (std::ranges::any_of(results, [](const EvalResult& r) { return !r.labelled || !r.classifies; }))
        return agreement_table(results);
    bool objects = false, paired = false, multi_label = false;
    for (const EvalResult& r : results) {
        multi_label = multi_label || r.multi_label;
        objects = objects || !r.object_kept_per_stage.empty();
        paired = paired || r.paired();
    }
    const auto line = [&](const std::string& policy, const std::string& ratio, const std::string& images,
                          const std::string& top1, const std::string& top5, const std::string& loss,
                          const std::string& gmacs, const std::string& tokens, const std::string& drop,
                          const std::string& object) {
        char text[256];
        std::snprintf(
            text, sizeof text, "%-13s %6s %7s %8s %8s %7s %7s  %-16s %s %s", policy.c_str(), ratio.c_str(),
            images.c_str(), top1.c_str(), top5.c_str(), loss.c_str(), gmacs.c_str(), tokens.c_str(),
            paired ? str(drop, std::string(std::max<std::size_t>(drop.size(), 15) - drop.size(), ' ')).c_str() : "",
            objects ? object.c_str() : "");
        std::string row = text;
        row.erase(row.find_last_not_of(' ') + 1);
        return row + '\n';
    };
    std::string table =
        line("policy", "ratio", "images", multi_label ? "mAP %" : "top-1 %", multi_label ? "classes" : "top-5 %",
             "loss", "GMACs", "kept tokens", multi_label ? "drop" : "drop (error)", "object kept %");
    for (const EvalResult& r : results) {
        const std::string object =
            r.object_kept_per_stage.empty() ? "" : fixed(100 * r.object_kept_per_stage.back(), 1);
        const std::string drop =
            multi_label ? fixed(r.map_lost, 2) : str(fixed(r.drop(), 2), " (", fixed(r.drop_error(), 2), ')');
        table +=
            line(r.policy, fixed(r.keep_ratio, 2), str(r.images), fixed(r.accuracy(), 2),
                 multi_label ? str(r.map_classes) : fixed(r.top5(), 2), fixed(r.loss, 3), fixed(r.gmacs, 3),
                 r.tokens_per_stage.empty() ? "all" : join(r.tokens_per_stage, "/"), r.paired() ? drop : "", object);
    }
    for (const EvalResult& r : results) table += spread_text(r) + unusable_text(r);
    return table;
}

}  // namespace dynvit
