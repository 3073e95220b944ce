#include "dynvit/export/torchscript.hpp"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <sstream>

#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/infer/pruned_vit.hpp"

namespace dynvit {
namespace {

namespace jit = torch::jit;

constexpr double kTolerance = 1e-4;

// What a module of the model becomes: a class's name and its methods. Children are called by forward().
struct ScriptClass {
    std::string name, code;
};

ScriptClass of(const torch::nn::LinearImpl& linear) {
    return {"Linear", str("def forward(self, x: Tensor) -> Tensor:\n    return torch.linear(x, self.weight",
                          linear.bias.defined() ? ", self.bias" : "", ")\n")};
}

ScriptClass of(const torch::nn::LayerNormImpl& norm) {
    return {"LayerNorm", str(R"(
def forward(self, x: Tensor) -> Tensor:
    return torch.layer_norm(x, [)",
                             norm.weight.numel(), "], self.weight, self.bias, ", norm.options.eps(), ")\n")};
}

ScriptClass of(const torch::nn::Conv2dImpl& convolution) {
    const std::int64_t patch = convolution.weight.size(2);
    return {"Conv2d", str(R"(
def forward(self, x: Tensor) -> Tensor:
    return torch.conv2d(x, self.weight, self.bias, [)",
                          patch, ", ", patch, "])\n")};
}

ScriptClass patch_embed_class() {
    return {"PatchEmbed", R"(
def forward(self, images: Tensor) -> Tensor:
    return self.proj.forward(images).flatten(2).transpose(1, 2)
)"};
}

ScriptClass attention_class(std::int64_t heads) {
    return {"Attention", str(R"(
def forward(self, x: Tensor) -> Tensor:
    batch, tokens, channels = x.size(0), x.size(1), x.size(2)
    qkv = self.qkv.forward(x).view([batch, tokens, 3, )",
                             heads, ", channels // ", heads, R"(]).permute([2, 0, 3, 1, 4])
    attended = torch.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
    return self.proj.forward(attended.transpose(1, 2).reshape([batch, tokens, channels]))
)")};
}

ScriptClass mlp_class() {
    return {"Mlp", R"(
def forward(self, x: Tensor) -> Tensor:
    return self.fc2.forward(torch.gelu(self.fc1.forward(x)))
)"};
}

ScriptClass block_class() {
    return {"Block", R"(
def forward(self, x: Tensor) -> Tensor:
    x = x + self.attn.forward(self.norm1.forward(x))
    return x + self.mlp.forward(self.norm2.forward(x))
)"};
}

// Gives log pi_keep: (B, n, C) -> (B, n).
ScriptClass prediction_module_class() {
    return {"PredictionModule", R"(
def forward(self, x: Tensor) -> Tensor:
    h = torch.gelu(getattr(self.in_conv, "1").forward(getattr(self.in_conv, "0").forward(x)))
    local, whole = torch.tensor_split(h, [h.size(2) // 2], 2)
    z = torch.cat([local, whole.mean([1], True).expand_as(local)], 2)
    z = torch.gelu(getattr(self.out_conv, "0").forward(z))
    z = torch.gelu(getattr(self.out_conv, "2").forward(z))
    return torch.log_softmax(getattr(self.out_conv, "4").forward(z).float(), -1)[:, :, 0]
)"};
}

std::string embed_code(const ModelSettings& settings) {
    const std::int64_t height = settings.image_height(), width = settings.image_width();
    return str("def embed(self, images: Tensor) -> Tensor:\n",  //
               "    assert images.dim() == 4 and images.size(2) == ", height, " and images.size(3) == ", width,
               ", \"images must be (B, 3, ", height, ", ", width, ")\"", R"(
    patches = self.patch_embed.forward(images)
    cls = self.cls_token.expand([patches.size(0), -1, -1])
    return torch.cat([cls, patches], 1) + self.pos_embed
)");
}

constexpr const char* kSelectionCode = R"(
def best_places(self, scores: Tensor, count: int) -> Tensor:
    order = torch.argsort(scores, stable=True, dim=-1, descending=True)
    return torch.sort(order[:, :count])[0]

def keep(self, x: Tensor, places: Tensor) -> Tensor:
    indices = places.unsqueeze(-1).expand([-1, -1, x.size(2)])
    return torch.cat([x[:, :1], torch.gather(x[:, 1:], 1, indices)], 1)
)";

std::string stage_code(std::int64_t stage, std::int64_t count, bool kept_tokens) {
    std::string code = str("    scores = getattr(self.score_predictor, \"", stage, "\").forward(x[:, 1:])\n",
                           "    places = self.best_places(scores, ", count, ")\n",  //
                           "    x = self.keep(x, places)\n");
    if (!kept_tokens) return code;
    const std::string kept = str("    kept_", stage + 1, " = ");
    return code + kept + (stage == 0 ? std::string("places\n") : str("torch.gather(kept_", stage, ", 1, places)\n"));
}

// Each stage's count is a constant; stages and blocks stand one after the other.
std::string forward_code(const ModelSettings& settings, const ExportOptions& options) {
    std::string code = "def forward(self, images: Tensor):\n    x = self.embed(images)\n", results = "logits";
    for (std::int64_t i = 0, stage = 0; i < settings.depth; ++i) {
        if (stage < std::ssize(options.tokens) && settings.pruning_loc[stage] == i) {
            code += stage_code(stage, options.tokens[stage], options.kept_tokens);
            ++stage;
            if (options.kept_tokens) results += str(", kept_", stage);
        }
        code += str("    x = getattr(self.blocks, \"", i, "\").forward(x)\n");
    }
    return code + "    logits = self.head.forward(self.norm.forward(x[:, 0]))\n    return " + results + '\n';
}

ScriptClass script_class(const torch::nn::Module& module, const ModelSettings& settings, const ExportOptions& options) {
    if (const auto* linear = module.as<torch::nn::Linear>()) return of(*linear);
    if (const auto* norm = module.as<torch::nn::LayerNorm>()) return of(*norm);
    if (const auto* convolution = module.as<torch::nn::Conv2d>()) return of(*convolution);
    if (module.as<PatchEmbed>()) return patch_embed_class();
    if (module.as<Attention>()) return attention_class(settings.num_heads);
    if (module.as<Mlp>()) return mlp_class();
    if (module.as<Block>()) return block_class();
    if (module.as<PredictionModule>()) return prediction_module_class();
    if (module.as<DynamicVit>()) {
        return {"DynamicVit", str(embed_code(settings), kSelectionCode, '\n', forward_code(settings, options))};
    }
    return {"Container", ""};  // a list or a sequence, whose children are called by name
}

// The module and those below it that have parameters, under the same names.
jit::Module mirror(const torch::nn::Module& module, const ModelSettings& settings, const ExportOptions& options,
                   const std::shared_ptr<jit::CompilationUnit>& unit) {
    const ScriptClass wanted = script_class(module, settings, options);
    jit::Module made(c10::QualifiedName("__torch__.dynvit." + wanted.name), unit, /*shouldMangle=*/true);
    made.register_attribute("training", c10::BoolType::get(), false);
    for (const auto& item : module.named_parameters(/*recurse=*/false)) {
        made.register_parameter(item.key(), item.value().detach(), /*is_buffer=*/false);
    }
    for (const auto& item : module.named_children()) {
        const bool unused = options.tokens.empty() && is_of_prediction_module(item.key() + '.');
        if (unused || item.value()->parameters().empty()) continue;
        made.register_module(item.key(), mirror(*item.value(), settings, options, unit));
    }
    if (!wanted.code.empty()) made.define(wanted.code);
    return made;
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

// @param written the file under the name that it has for now
void check(const std::filesystem::path& path, const std::filesystem::path& written, DynamicVit model,
           const ExportOptions& options) {
    const ModelSettings& settings = model->settings();
    jit::Module loaded = jit::load(written.string());
    const auto engine = std::make_shared<const InferenceModel>(*model);
    const auto policy = make_policy("predicted", engine);
    auto generator = at::make_generator<at::CPUGeneratorImpl>(0);
    for (const std::int64_t batch : {1, 3}) {
        const at::Tensor images =
            at::randn({batch, 3, settings.image_height(), settings.image_width()}, generator, at::kFloat);
        compare(run(loaded, images), pruned_forward(*engine, images, *policy, options.tokens), path.string());
    }
}

}  // namespace

void export_torchscript(const std::filesystem::path& path, DynamicVit model, const ExportOptions& options) {
    AtomicFile file(path, "export");
    const jit::Module module = mirror(*model, model->settings(), options, std::make_shared<jit::CompilationUnit>());
    std::ostringstream bytes;
    module.save(bytes);
    const std::string_view view = bytes.view();
    file.write(view.data(), view.size());
    check(path, file.temporary(), model, options);
    file.commit();
}

}  // namespace dynvit
