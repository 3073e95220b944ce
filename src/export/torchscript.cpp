#include "dynvit/export/torchscript.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <sstream>

#include "dynvit/core/config.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/infer/pruned_vit.hpp"
#include "dynvit/models/rotary_positions.hpp"
#include "dynvit/models/vit_forward.hpp"
#include "dynvit/ops/bipartite.hpp"

namespace dynvit {
namespace {

namespace jit = torch::jit;

constexpr double kTolerance = 1e-4;
constexpr const char* kPreprocessing = "dynvit.preprocessing";

// "blocks.0.norm1.weight" as TorchScript reads it: self.blocks, its attribute "0", and so on.
std::string attribute(const std::string& path) {
    std::string expression = "self", part;
    std::istringstream parts(path);
    while (std::getline(parts, part, '.')) {
        const bool number = part.find_first_not_of("0123456789") == std::string::npos;
        expression = number ? str("getattr(", expression, ", \"", part, "\")") : str(expression, '.', part);
    }
    return expression;
}

// Operations as lines of TorchScript. A value is the expression that gives it. @see vit_forward.hpp
class Script {
  public:
    Script(const ModelSettings& settings, const VitParts& parts) : settings_(settings), parts_(parts) {}

    // The method forward. Each stage's count is a constant; stages and blocks stand one after the other.
    std::string forward(const ExportOptions& options) {
        const std::int64_t height = settings_.image_height(), width = settings_.image_width();
        lines_ = str("def forward(self, images: Tensor):\n",  //
                     "    assert images.dim() == 4 and images.size(2) == ", height, " and images.size(3) == ", width,
                     ", \"images must be (B, 3, ", height, ", ", width, ")\"\n");
        std::string x = embed(*this, parts_.stem, "images"), results;
        if (settings_.rope != "none")
            turn_by(str("torch.arange(", settings_.patches(), ", device=images.device).unsqueeze(0)"));
        walk_blocks(
            settings_, std::ssize(options.plan.tokens),
            [&](std::int64_t stage, std::int64_t block) {
                reduce(x, stage, block, options.plan.tokens[static_cast<std::size_t>(stage)]);
                if (options.kept_tokens) results += str(", kept_", stage + 1);
            },
            [&](std::int64_t block, BlockPiece piece) {
                if (piece == BlockPiece::kAttention) line("before", x);
                run_block(*this, parts_.blocks[static_cast<std::size_t>(block)], x, piece);
            });
        const std::string logits = classify(*this, settings_, parts_, x);
        return str(lines_, "    return ", logits, results, '\n');
    }

    std::string patches(const std::string& images, const StemPart& stem) {
        const std::int64_t size = stem.patch_size;
        return line("x", str("torch.conv2d(", images, ", ", weight(stem.patches.name), ", ", bias(stem.patches), ", [",
                             size, ", ", size, "]).flatten(2).transpose(1, 2)"));
    }
    std::string prepend(const std::vector<PrefixPart>& prefix, const std::string& x) {
        std::string rows;
        for (const PrefixPart& part : prefix) rows += attribute(part.name) + ".expand([images.size(0), -1, -1]), ";
        return line("x", str("torch.cat([", rows, x, "], 1)"));
    }
    std::string plus(const std::string& x, const std::string& name) {
        return line("x", str(x, " + ", attribute(name)));
    }
    std::string norm(const std::string& x, const NormPart& part) {
        return str("torch.layer_norm(", x, ", [", part.channels, "], ", weight(part.name), ", ",
                   attribute(part.name + ".bias"), ", ", part.epsilon, ")");
    }
    std::string linear(const std::string& x, const LinearPart& part) {
        const std::string scale = part.gamma.empty() ? "" : " * " + attribute(part.gamma);
        return value(str("torch.linear(", x, ", ", weight(part.name), ", ", bias(part), ")", scale));
    }
    std::string norm_heads(const std::string& qkv, const AttentionPart& part) {
        line("queries, keys, values", str("torch.tensor_split(", qkv, ", 3, 2)"));
        const auto normed = [&](const char* x, const NormPart& norm_part) {
            const std::string heads = str(x, ".unflatten(2, [", part.heads, ", ", part.head_dim(), "])");
            return norm(heads, norm_part) + ".flatten(2)";
        };
        return value(
            str("torch.cat([", normed("queries", *part.q_norm), ", ", normed("keys", *part.k_norm), ", values], 2)"));
    }
    std::string attention(const std::string& qkv, const AttentionPart& part) {
        const std::int64_t channels = part.proj.inputs;
        line("q, k, v", str("torch.unbind(", qkv, ".view([", qkv, ".size(0), ", qkv, ".size(1), 3, ", part.heads, ", ",
                            channels / part.heads, "]).permute([2, 0, 3, 1, 4]), 0)"));
        return value(str("torch.scaled_dot_product_attention(q, k, v", size_bias(), ").transpose(1, 2).reshape([", qkv,
                         ".size(0), -1, ", channels, "])"));
    }
    void add_linear(std::string& x, const std::string& h, const LinearPart& part) {
        x = line("x", str(x, " + ", linear(h, part)));
    }
    void add_mlp(std::string& x, const std::string& normed, const MlpPart& part) {
        const std::string h = activate(linear(normed, part.fc1), part.activation);
        add_linear(x, part.norm ? norm(h, *part.norm) : h, part.fc2);
    }
    std::string activate(const std::string& x, Activation activation) {
        switch (activation) {
            case Activation::kGelu:
                return gelu(x);
            case Activation::kGeluTanh:
                return value(str("torch.gelu(", x, ", approximate=\"tanh\")"));
            case Activation::kQuickGelu:
                return value(str(x, " * torch.sigmoid(1.702 * ", x, ")"));
            case Activation::kSwiGlu:
                line("gate, inner", str("torch.tensor_split(", x, ", 2, -1)"));
                return value("torch.silu(gate) * inner");
        }
        return {};
    }
    // Turns the queries and keys by the rows of `turns`, see rotate_queries_keys.
    std::string rotate(const std::string& qkv, const AttentionPart& part) {
        const bool halves = *part.rotary == RotaryLayout::kHalves;
        const std::int64_t half = part.head_dim() / 2, axis = halves ? 3 : 4;
        line("turned, values", str("torch.tensor_split(", qkv, ", [", 2 * part.proj.inputs, "], 2)"));
        const std::string shape = halves ? str("2, ", half) : str(half, ", 2");
        line("first, second", str("torch.unbind(turned.unflatten(2, [-1, ", shape, "]), ", axis, ")"));
        line("turned", str("torch.stack([first * cosines - second * sines, second * cosines + first * sines], ", axis,
                           ").flatten(2)"));
        return value("torch.cat([turned, values], 2)");
    }
    std::string norm_rows(const std::string& x, const NormPart& part) { return norm(x, part); }
    std::string prefix_token(const std::string& x, std::int64_t index) { return value(str(x, "[:, ", index, ']')); }
    std::string beside(const std::string& x, const std::string& y) {
        return value(str("torch.cat([", x, ", ", y, "], 1)"));
    }
    std::string mean_of(const std::string& x, const std::string& y) { return value(str("(", x, " + ", y, ") / 2")); }
    std::string sum(const std::string& x, const std::string& y) { return value(str(x, " + ", y)); }
    std::string latent(const std::string& name) { return attribute(name) + "[:, 0]"; }
    std::string pool(const std::string& query, const std::string& kv, const PoolPart& part) {
        const std::int64_t channels = part.proj.inputs;
        line("k, v", str("torch.unbind(", kv, ".view([", kv, ".size(0), ", kv, ".size(1), 2, ", part.heads, ", ",
                         channels / part.heads, "]).permute([2, 0, 3, 1, 4]), 0)"));
        line("q", str(query, ".view([1, ", part.heads, ", 1, -1]).expand([", "images.size(0), -1, -1, -1])"));
        return value(str("torch.scaled_dot_product_attention(q, k, v", size_bias(), ").flatten(1)"));
    }
    std::string patch_mean(const std::string& x) {
        const std::string patches = str(x, "[:, ", settings_.prefix_tokens(), ":]");
        if (tokens_ == 0) return patches + ".sum([1])";  // zeros, as counted_mean has them
        if (!merged_) return patches + ".mean([1])";
        line("counted", str("sizes[:, ", settings_.prefix_tokens(), ":].unsqueeze(2)"));
        return value(str("(", patches, " * counted).sum([1]) / counted.sum([1]).clamp_min(1)"));
    }

    std::string gelu(const std::string& x) { return value(str("torch.gelu(", x, ")")); }
    std::string share_mean(const std::string& x) {
        line("own, shared", str("torch.tensor_split(", x, ", [", x, ".size(2) // 2], 2)"));
        return value("torch.cat([own, shared.mean([1], True).expand_as(own)], 2)");
    }
    std::string log_keep(const std::string& x) {
        return line("scores", str("torch.log_softmax(", x, ".float(), -1)[:, :, 0]"));
    }

  private:
    // Assigns the expression to a variable of its own. @return the variable
    std::string value(const std::string& expression) { return line(str('h', values_++), expression); }
    // Assigns the expression. @return the variable
    std::string line(const std::string& variable, const std::string& expression) {
        lines_ += str("    ", variable, " = ", expression, '\n');
        return variable;
    }
    const char* size_bias() const { return merged_ ? ", sizes.log().to(q.dtype).unsqueeze(1).unsqueeze(1)" : ""; }
    std::string weight(const std::string& name) const { return attribute(name + ".weight"); }
    std::string bias(const LinearPart& part) const { return part.bias ? attribute(part.name + ".bias") : "None"; }

    // What the model's stages do, see reduce_tokens: `rows` of the patch tokens that are left, their sizes and places.
    void reduce(std::string& x, std::int64_t stage, std::int64_t block, std::int64_t count) {
        const std::int64_t prefix = settings_.prefix_tokens();
        line("patches", str(x, "[:, ", prefix, ":]"));
        if (settings_.matches()) {
            match(block, count);
        } else {
            choose(stage, count);
        }
        if (settings_.merges() && count > 0) join_nearest(block);
        if (settings_.averages() && count > 0) {
            average(count);
        } else {
            line("rows", gather("patches", settings_.embed_dim));
            if (merged_) line("sizes", str("sizes[:, :", prefix, "]"));  // none is left
        }
        const bool fuses = settings_.fuses() && count < tokens_;
        if (fuses) fuse();
        x = line("x", str("torch.cat([", x, "[:, :", prefix, "], rows], 1)"));
        const std::string kept = stage == 0 ? "places" : str("torch.gather(kept_", stage, ", 1, places)");
        line(str("kept_", stage + 1),
             fuses ? str("torch.constant_pad_nd(", kept, ", [0, 1], ", settings_.patches(), ")") : kept);
        tokens_ = settings_.tokens_behind(tokens_, count);
        if (settings_.rope != "none") turn_by(str("kept_", stage + 1));
    }

    // `cosines` and `sines`, (B or 1, prefix + n, 1, d / 2), of the tokens at these positions.
    void turn_by(const std::string& positions) {
        line("turns", str("self.rotary_table[torch.constant_pad_nd(", positions, ", [", settings_.prefix_tokens(),
                          ", 0], ", settings_.patches(), ")].unsqueeze(2)"));
        line("cosines, sines", "torch.unbind(turns, 3)");
    }

    // `places` of the patch tokens with the highest scores, ties to the lower place, in the order of the grid.
    void choose(std::int64_t stage, std::int64_t count) {
        predict(*this, parts_.predictors[static_cast<std::size_t>(stage)], "patches");
        line("order", "torch.argsort(scores, stable=True, dim=-1, descending=True)");
        line("places", str("torch.sort(order[:, :", count, "])[0]"));
    }

    static std::string gather(const std::string& rows, std::int64_t width) {
        return str("torch.gather(", rows, ", 1, places.unsqueeze(-1).expand([-1, -1, ", width, "]))");
    }

    // `unit`: the keys of the block, the mean over its heads, of length 1.
    void compare(std::int64_t block) {
        const BlockPart& part = parts_.blocks[static_cast<std::size_t>(block)];
        const AttentionPart& attention = part.attention;
        const std::string keyed =
            settings_.stages_in_blocks() ? str("before[:, ", settings_.prefix_tokens(), ":]") : "patches";
        const std::string normed = norm(keyed, part.norm1);
        const auto of_keys = [&](const std::string& tensor, const char* rest) {
            return str(tensor, ".view([3, ", attention.heads, ", ", head_dim(), rest, "])[1]");
        };
        const std::string weights = of_keys(weight(attention.qkv.name), ", -1");
        const std::string biases = attention.qkv.bias ? of_keys(attribute(attention.qkv.name + ".bias"), "") : "None";
        if (attention.k_norm) {
            const std::string flat_biases = attention.qkv.bias ? biases + ".flatten()" : biases;
            line("keys", str("torch.linear(", normed, ", ", weights, ".flatten(0, 1), ", flat_biases,
                             ").unflatten(2, [", attention.heads, ", ", head_dim(), "])"));
            line("keys", norm("keys", *attention.k_norm) + ".mean([2]).float()");
        } else {
            const std::string mean_biases = attention.qkv.bias ? biases + ".mean([0])" : biases;
            line("keys", str("torch.linear(", normed, ", ", weights, ".mean([0]), ", mean_biases, ").float()"));
        }
        line("unit", "keys / keys.norm(2, [-1], True).clamp_min(1e-12)");
    }

    // `own`, (B, n): 1 at the kept places, 0 elsewhere.
    void mark_kept() { line("own", "torch.zeros_like(patches[:, :, 0], dtype=4).scatter(1, places, 1)"); }

    // What dynvit's join_nearest does.
    void join_nearest(std::int64_t block) {
        compare(block);
        mark_kept();
        line("nearest, slot",
             str("torch.max(torch.matmul(", gather("unit", head_dim()), ", unit.transpose(1, 2)), 1)"));
        line("slots", str("torch.where(own == 1, own.cumsum(1) - 1, slot.masked_fill(nearest.clamp_max(1) <= ",
                          settings_.merge_threshold, ", -1))"));
    }

    // What match_bipartite does.
    void match(std::int64_t block, std::int64_t count) {
        const std::int64_t first = first_even(settings_.prefix_tokens()), joining = tokens_ - count;
        line("all", str("torch.arange(", tokens_, ", device=patches.device)"));
        if (joining == 0) {
            line("places", "all.expand([patches.size(0), -1])");
            line("slots", "places");
            return;
        }
        const std::int64_t even = count_even(tokens_, settings_.prefix_tokens()), left = even - joining;
        compare(block);
        line("nearest, odd",
             str("torch.max(torch.matmul(unit[:, ", first, "::2], unit[:, ", 1 - first, "::2].transpose(1, 2)), 2)"));
        line("order", "torch.argsort(nearest.clamp_max(1), stable=True, dim=-1, descending=True)");
        line("joining", str("order[:, :", joining, "]"));
        line("rest", str("order[:, ", joining, ":]"));
        if (settings_.prefix_tokens() > 0) line("rest", "torch.sort(rest)[0]");
        line("odds", str("all[:", tokens_ - even, "].expand([patches.size(0), -1])"));
        line("places", str("torch.cat([2 * rest + ", first, ", 2 * odds + ", 1 - first, "], 1)"));
        line("slots", str("torch.zeros_like(order).scatter(1, rest, all[:", left,
                          "].expand_as(rest)).scatter(1, joining, ", left, " + torch.gather(odd, 1, joining))"));
        line("turned", str("all // 2 + (all % 2 != ", first, ") * ", even));
        line("slots", str("torch.cat([slots, ", left, " + odds], 1).index_select(1, turned)"));
    }

    // What average_groups does.
    void average(std::int64_t count) {
        const std::int64_t prefix = settings_.prefix_tokens();
        line("joins", str("(slots.unsqueeze(1) == torch.arange(", count, ", device=slots.device).view([1, -1, 1]))"));
        line("shares", merged_ ? str("joins.float() * sizes[:, ", prefix, ":].unsqueeze(1)") : "joins.float()");
        line("merged", "shares.sum([2])");
        line("rows", "torch.matmul(shares / merged.unsqueeze(2), patches.float()).to(patches.dtype)");
        line("sizes", str("torch.constant_pad_nd(merged, [", prefix, ", 0], 1.0)"));
        merged_ = true;
    }

    // What fuse_dropped does, with the weights of log-probabilities.
    void fuse() {
        mark_kept();
        line("lost", "torch.softmax(scores, -1).masked_fill(own == 1, 0.0).unsqueeze(1)");
        line("rows", "torch.cat([rows, torch.matmul(lost, patches.float()).to(patches.dtype)], 1)");
    }

    std::int64_t head_dim() const { return settings_.head_dim(); }

    const ModelSettings& settings_;
    const VitParts& parts_;
    std::string lines_;
    std::int64_t tokens_ = settings_.patches();  // patch tokens that are left
    std::int64_t values_ = 0;
    bool merged_ = false;  // they have `sizes`, (B, prefix + n), as patches that each stands for
};

// The module's parameters under the same names, in modules of the same tree.
jit::Module mirror(const torch::nn::Module& module, const ExportOptions& options,
                   const std::shared_ptr<jit::CompilationUnit>& unit) {
    const bool root = module.as<DynamicVit>() != nullptr;
    jit::Module made(c10::QualifiedName(str("__torch__.dynvit.", root ? "DynamicVit" : "Parameters")), unit,
                     /*shouldMangle=*/true);
    made.register_attribute("training", c10::BoolType::get(), false);
    for (const auto& item : module.named_parameters(/*recurse=*/false)) {
        made.register_parameter(item.key(), item.value().detach(), /*is_buffer=*/false);
    }
    for (const auto& item : module.named_children()) {
        const bool unused = options.plan.tokens.empty() && is_of_prediction_module(item.key() + '.');
        if (unused || item.value()->parameters().empty()) continue;
        made.register_module(item.key(), mirror(*item.value(), options, unit));
    }
    return made;
}

jit::Module make_module(DynamicVitImpl& model, const ExportOptions& options) {
    jit::Module module = mirror(model, options, std::make_shared<jit::CompilationUnit>());
    const at::Tensor table = rotary_table(model.settings());
    if (table.defined()) module.register_buffer("rotary_table", table);
    module.define(Script(model.settings(), vit_parts(model.settings())).forward(options));
    return module;
}

PrunedOutput run(jit::Module& module, const at::Tensor& images) {
    const torch::NoGradGuard no_grad;
    const c10::IValue result = module.forward({images});
    if (result.isTensor()) return {result.toTensor(), {}};
    PrunedOutput output;
    for (const c10::IValue& value : result.toTupleRef().elements()) output.kept.push_back(value.toTensor());
    output.logits = output.kept.front();
    output.kept.erase(output.kept.begin());
    return output;
}

void compare(const PrunedOutput& found, const PrunedOutput& expected, const std::string& file) {
    for (std::size_t s = 0; s < found.kept.size(); ++s) {
        if (!found.kept[s].equal(expected.kept[s])) {
            throw Error("export", file, ": keeps other tokens at stage ", s + 1, " than the model");
        }
    }
    const double difference = (found.logits - expected.logits).abs().max().item<double>();
    if (!(difference <= kTolerance * std::max(1.0, expected.logits.abs().max().item<double>()))) {
        throw Error("export", file, ": found logits that differ by ", difference, " from the model's, expected ",
                    kTolerance, " at most");
    }
}

std::string preprocessing_text(const ExportOptions& options, const ModelSettings& settings) {
    return str("# images: ", describe(options.preprocessing, settings.image_height(), settings.image_width()), '\n',
               write_config(options.preprocessing, false));
}

// @param written the file under the name that it has for now
void check(const std::filesystem::path& path, const std::filesystem::path& written, DynamicVit model,
           const ExportOptions& options) {
    const ModelSettings& settings = model->settings();
    jit::ExtraFilesMap files = {{kPreprocessing, ""}};
    jit::Module loaded = jit::load(written.string(), std::nullopt, files);
    if (files.at(kPreprocessing) != preprocessing_text(options, settings)) {
        throw Error("export", path.string(), ": does not say how pictures are prepared; is the disk in order?");
    }
    const auto engine = std::make_shared<const InferenceModel>(*model);
    const auto policy = settings.predicts() ? make_policy(kPredicted, engine) : nullptr;
    auto generator = at::make_generator<at::CPUGeneratorImpl>(0);
    for (const std::int64_t batch : {1, 3}) {
        const at::Tensor images =
            at::randn({batch, 3, settings.image_height(), settings.image_width()}, generator, at::kFloat);
        compare(run(loaded, images), pruned_forward(*engine, images, policy.get(), options.plan.tokens), path.string());
    }
}

}  // namespace

void export_torchscript(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options) {
    AtomicFile file(path, "export");
    const jit::Module module = make_module(*model, options);
    std::ostringstream bytes;
    module.save(bytes, {{kPreprocessing, preprocessing_text(options, model->settings())}});
    const std::string_view view = bytes.view();
    file.write(view.data(), view.size());
    check(path, file.temporary(), model, options);
    file.commit();
}

}  // namespace dynvit
