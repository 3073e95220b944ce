#include "dynvit/core/config.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>

#include "dynvit/core/error.hpp"
#include "dynvit/core/file_kind.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/text.hpp"

namespace dynvit {
namespace {

constexpr const char* kBase = "base";
constexpr const char* kMerge = "<<";
constexpr const char* kAside = "x-";  // what a key of the file's own begins with, which only anchors are for
// Of whole numbers without a bound of their own: counts that are multiplied with each other stay within 64 bits.
constexpr double kMostCount = 1e9;

// A configuration file's text. Throws Error where the file is something else, such as the weights beside it.
std::string read_yaml(const std::filesystem::path& path) {
    constexpr std::array kPossible = {FileKind::kText,  FileKind::kTextWithMark, FileKind::kJson,
                                      FileKind::kUtf16, FileKind::kEmpty,        FileKind::kUnknown};
    const std::vector<std::uint8_t> bytes = read_file(path, "config");
    const FileKind kind = file_kind(bytes);
    if (std::ranges::find(kPossible, kind) == kPossible.end()) {
        throw Error("config", path.string(), ": found ", describe_file(bytes, bytes.size()), ", expected YAML text",
                    advice(kind));
    }
    return {bytes.begin(), bytes.end()};
}

std::string number(double value) {
    char buffer[32];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
    return {buffer, end};
}

// A text as it stands in a list [a, b]: quoted where YAML would take it for something else.
std::string quoted_in_list(const std::string& text) {
    YAML::Emitter out;
    if (text.empty() || text.find_first_of(",[]{}'\"\n") != std::string::npos) out << YAML::DoubleQuoted;
    out << text;
    return out.c_str();
}

// "a number above 0"
std::string limited(const std::string& what, const Limits& limits) {
    const std::string text = limits.text();
    return text.empty() ? what : what + ' ' + text;
}

std::string describe(const YAML::Node& node) {
    switch (node.Type()) {
        case YAML::NodeType::Map:
            return "a map";
        case YAML::NodeType::Sequence:
            return "a list";
        case YAML::NodeType::Scalar:
            return str('\'', node.Scalar(), '\'');
        default:
            return "nothing";
    }
}

/// Where the document that is being read starts, and what is in it.
struct DocumentStart : YAML::EventHandler {
    YAML::Mark start;
    std::optional<YAML::Mark> content;

    void OnDocumentStart(const YAML::Mark& mark) override {
        start = mark;
        content.reset();
    }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { found(mark); }
    void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t, const std::string&) override {
        found(mark);
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                         YAML::EmitterStyle::value) override {
        found(mark);
    }
    void OnSequenceEnd() override {}
    void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
        found(mark);
    }
    void OnMapEnd() override {}

  private:
    void found(const YAML::Mark& mark) {
        if (!content) content = mark;
    }
};

/// Where a text's second document has its first value. Throws YAML::Exception. (YAML::LoadAll reads a comma that
/// separates nothing as empty documents without end.)
std::optional<YAML::Mark> second_document(const std::string& text) {
    std::istringstream in(text);
    YAML::Parser parser(in);
    DocumentStart document;
    for (int before = -1; parser.HandleNextDocument(document); before = document.start.pos) {
        if (document.start.pos == before) {
            throw YAML::ParserException(document.start, "a comma that separates nothing");
        }
        if (before >= 0 && document.content) return document.content;
    }
    return std::nullopt;
}

class Reader : public FieldVisitor {
  public:
    explicit Reader(const ConfigSource& source) : name_(source.name) {
        YAML::Node root = load(source.text, source.name, source.folder, {});
        for (const std::string& override : source.overrides) apply(root, override);
        enter("", root);
    }

    void finish() { leave(); }

    bool reads() const override { return true; }

    void field(const std::string& key, bool& value, const std::string&) override {
        const YAML::Node node = find(key);
        if (node && !YAML::convert<bool>::decode(node, value)) mismatch(key, node, "true or false");
    }

    void field(const std::string& key, std::int64_t& value, const std::string&, Limits limits) override {
        if (const YAML::Node node = find(key)) value = integer(key, node, limits);
    }

    void field(const std::string& key, double& value, const std::string&, Limits limits) override {
        if (const YAML::Node node = find(key)) value = real(key, node, limits);
    }

    void field(const std::string& key, std::string& value, const std::string&,
               const std::vector<std::string>& choices) override {
        const YAML::Node node = find(key);
        if (!node) return;
        const std::string found = words(key, node);
        if (!choices.empty() && std::find(choices.begin(), choices.end(), found) == choices.end()) {
            mismatch(key, node, "one of " + join(choices, ", "));
        }
        value = found;
    }

    void field(const std::string& key, std::vector<std::int64_t>& value, const std::string&, Limits limits) override {
        read_list(key, value, "numbers", [&](const YAML::Node& item) { return integer(key, item, limits); });
    }

    void field(const std::string& key, std::vector<double>& value, const std::string&, Limits limits) override {
        read_list(key, value, "numbers", [&](const YAML::Node& item) { return real(key, item, limits); });
    }

    void field(const std::string& key, std::vector<std::string>& value, const std::string&) override {
        read_list(key, value, "texts", [&](const YAML::Node& item) { return words(key, item); });
    }

    bool gives(const std::string& key) const override {
        const std::size_t first_dot = std::min(key.find('.'), key.size());
        for (const auto& [name, value] : levels_.back().entries) {
            if (name == key.substr(0, first_dot))
                return first_dot == key.size() || has(value, key.substr(first_dot + 1));
        }
        return false;
    }

    void reject(const std::string& key, const std::string& found_and_expected,
                const std::vector<std::string>& beside) override {
        std::string where = given_at(path(key));
        for (const std::string& other : beside) {
            if (where.empty()) where = given_at(path(other));
        }
        throw Error("config", where.empty() ? name_ : where, ": ", path(key), ": ", found_and_expected);
    }

  protected:
    void begin_section(const std::string& key, const std::string&) override {
        YAML::Node node = find(key);
        if (node && !node.IsMap() && !node.IsNull()) mismatch(key, node, "a map of settings");
        enter(path(key), node);
    }

    void end_section() override { leave(); }

  private:
    struct Level {
        std::string path;
        std::vector<std::pair<std::string, YAML::Node>> entries;
        std::vector<std::string> known;
    };

    static YAML::Node parse(const std::string& text, const std::string& name) {
        try {
            if (const std::optional<YAML::Mark> second = second_document(text)) {
                throw Error("config", name, ':', second->line + 1, ": found a second document, expected one");
            }
            return YAML::Load(text);
        } catch (const YAML::Exception& error) {
            if (const int tab = line_indented_by_tab(text, error.mark.line + 1); tab > 0) {
                throw Error("config", name, ':', tab, ": found a tab at the start of the line, expected spaces");
            }
            const std::string line = error.mark.is_null() ? "" : str(':', error.mark.line + 1);
            throw Error("config", name, line, ": not valid YAML: ", error.msg);
        }
    }

    // The first line that is, up to line `last`, from 1; 0 where there is none.
    static int line_indented_by_tab(const std::string& text, int last) {
        std::istringstream lines(text);
        std::string line;
        for (int number = 1; number <= last && std::getline(lines, line); ++number) {
            const std::size_t content = std::min(line.find_first_not_of(" \t"), line.size());
            if (line.find('\t') < content) return number;
        }
        return 0;
    }

    // The value of a --set: a list, a map or a quoted text as YAML has them; anything else is a text as it stands.
    static YAML::Node parse_value(const std::string& text, const std::string& name) {
        const auto found = [&](const char* expected) {
            return Error(
                "config", name, ": found ",
                text.find_first_not_of(' ') == std::string::npos ? "no value (an unset shell variable?)" : text,
                ", expected ", expected);
        };
        const std::size_t first = text.find_first_not_of(' ');
        if (first == std::string::npos) throw found("one; \"\" means an empty text");
        const std::string value = text.substr(first, text.find_last_not_of(' ') + 1 - first);
        if (value == "~" || value == "null") return YAML::Node(YAML::NodeType::Null);
        constexpr std::string_view kOpen = "[{\"'", kClose = "]}\"'";
        const std::size_t kind = kOpen.find(value.front());
        if (kind == std::string_view::npos) return YAML::Node(value);
        if (value.size() < 2 || value.back() != kClose[kind]) throw found("it to end as it begins");
        try {
            return YAML::Load(value);
        } catch (const YAML::Exception& error) {
            throw Error("config", name, ": the value is not valid YAML: ", error.msg);
        }
    }

    // Counts one key more. Aliases of maps that are full of aliases make many keys of a short text.
    static void count_key(std::size_t& keys, const std::string& name) {
        constexpr std::size_t kMostKeys = 2000;
        if (++keys > kMostKeys) {
            throw Error("config", name, ": found more than ", kMostKeys, " settings, those behind aliases with them");
        }
    }

    // Puts the entries of maps that "<<" names where it stands, but for keys that are there already.
    static void expand_merges(YAML::Node node, const std::string& name, std::size_t& keys) {
        if (!node.IsMap()) return;
        for (const auto& entry : node) {
            count_key(keys, name);
            expand_merges(entry.second, name, keys);
        }
        const YAML::Node merged = node[kMerge];
        if (!merged) return;
        const std::vector<YAML::Node> sources =
            merged.IsSequence() ? std::vector<YAML::Node>(merged.begin(), merged.end()) : std::vector{merged};
        node.remove(kMerge);
        for (const YAML::Node& source : sources) {
            if (!source.IsMap()) {
                throw Error("config", name, ':', merged.Mark().line + 1, ": ", kMerge, ": found ", describe(source),
                            ", expected an alias of a map");
            }
            for (const auto& entry : source) {
                count_key(keys, name);
                if (entry.first.IsScalar() && !node[entry.first.Scalar()]) {
                    node[entry.first.Scalar()] = entry.second;
                }
            }
        }
    }

    // The text's settings over those of its base.
    // @param folder where a base is looked for, see ConfigSource; "": the current one
    // @param above the files that name this one as their base, or their base's base
    YAML::Node load(const std::string& text, const std::string& name,
                    const std::optional<std::filesystem::path>& folder, std::vector<std::filesystem::path> above) {
        YAML::Node root = parse(text, name);
        if (root.IsNull()) root = YAML::Node(YAML::NodeType::Map);
        if (!root.IsMap()) throw Error("config", name, ": found ", describe(root), ", expected a map of settings");
        std::size_t written = 0, expanded = 0, merged_in = 0;
        check_keys(root, name, "", written);
        expand_merges(root, name, expanded);
        YAML::Node merged(YAML::NodeType::Map);
        if (const YAML::Node base = root[kBase]) {
            const std::string where = str(name, ':', base.Mark().line + 1, ": ", kBase, ": ");
            if (!base.IsScalar() || base.Scalar().empty()) {
                throw Error("config", where, "found ", describe(base), ", expected a file's name");
            }
            if (!folder) throw Error("config", where, "found ", describe(base), ", expected none outside a file");
            above.push_back(std::filesystem::weakly_canonical(name));
            merged = load_base(*folder / base.Scalar(), where, std::move(above));
            root.remove(kBase);
        }
        merge(merged, root, name, "", merged_in);
        return merged;
    }

    YAML::Node load_base(const std::filesystem::path& file, const std::string& where,
                         std::vector<std::filesystem::path> above) {
        if (std::ranges::find(above, std::filesystem::weakly_canonical(file)) != above.end()) {
            throw Error("config", where, "found ", file.string(), ", whose own base leads back here");
        }
        std::string text;
        try {
            text = read_yaml(file);
        } catch (const Error& error) {
            throw Error("config", where, std::string(error.what()).substr(std::string_view("[config] ").size()));
        }
        return load(text, file.string(), file.parent_path(), std::move(above));
    }

    // Throws Error where a key is no text or stands twice.
    static void check_keys(const YAML::Node& map, const std::string& name, const std::string& parent,
                           std::size_t& keys) {
        constexpr std::size_t kDeepest = 1000;  // letters of a key's path
        if (parent.size() > kDeepest) throw Error("config", name, ": found an alias that stands inside its own anchor");
        std::map<std::string, std::string> seen;  // where
        for (const auto& entry : map) {
            count_key(keys, name);
            const std::string line = str(name, ':', entry.first.Mark().line + 1, ": ");
            if (!entry.first.IsScalar()) {
                throw Error("config", line, "found ", describe(entry.first), ", expected a setting's name");
            }
            const std::string full = below(parent, entry.first.Scalar());
            const auto [first, is_new] = seen.emplace(full, line);
            if (!is_new) throw Error("config", first->second, full, ": stands here twice");
            if (entry.second.IsMap()) check_keys(entry.second, name, full, keys);
        }
    }

    // Writes a file's keys into the tree, those of maps one by one, and notes where each stands.
    void merge(YAML::Node into, const YAML::Node& map, const std::string& name, const std::string& parent,
               std::size_t& keys) {
        for (const auto& entry : map) {
            count_key(keys, name);
            const std::string key = entry.first.Scalar(), full = below(parent, key);
            if (parent.empty() && key.starts_with(kAside)) continue;
            const YAML::Mark mark = entry.second.Mark().is_null() ? entry.first.Mark() : entry.second.Mark();
            places_[full] = str(name, ':', mark.line + 1);
            if (!entry.second.IsMap()) {
                into[key] = entry.second;
                continue;
            }
            if (!into[key].IsDefined() || !into[key].IsMap()) into[key] = YAML::Node(YAML::NodeType::Map);
            merge(into[key], entry.second, name, full, keys);
        }
    }

    static std::string below(const std::string& parent, const std::string& key) {
        return parent.empty() ? key : parent + '.' + key;
    }

    // Writes a "key.key=value" into the tree.
    void apply(const YAML::Node& root, const std::string& override) {
        const std::size_t equals = override.find('=');
        if (equals == std::string::npos || equals == 0) {
            throw Error("config", "--set ", override, ": expected KEY=VALUE, such as train.schedule.lr=1e-4");
        }
        const std::string key = override.substr(0, equals);
        YAML::Node node = root;
        std::size_t from = 0;
        for (std::size_t dot; (dot = key.find('.', from)) != std::string::npos; from = dot + 1) {
            YAML::Node next = node[key.substr(from, dot - from)];
            if (!next || next.IsNull()) next = YAML::Node(YAML::NodeType::Map);
            if (!next.IsMap()) {
                throw Error("config", "--set ", override, ": ", key.substr(0, dot), " is a value, not a section");
            }
            node.reset(next);
        }
        node[key.substr(from)] = parse_value(override.substr(equals + 1), "--set " + override);
        overridden_[key] = "--set " + override;
    }

    void enter(const std::string& path, const YAML::Node& node) {
        Level level{path, {}, {}};
        if (node && node.IsMap()) {
            for (const auto& entry : node) level.entries.emplace_back(entry.first.Scalar(), entry.second);
        }
        levels_.push_back(std::move(level));
    }

    void leave() {
        const Level& level = levels_.back();
        for (const auto& [key, value] : level.entries) {
            if (std::find(level.known.begin(), level.known.end(), key) == level.known.end()) unknown(key);
        }
        levels_.pop_back();
    }

    [[noreturn]] void unknown(const std::string& key) const {
        const Level& level = levels_.back();
        const std::string nearest = nearest_name(key, level.known);
        const std::string expected =
            nearest.empty() ? "expected one of " + join(level.known, ", ") : "did you mean " + nearest + '?';
        throw Error("config", place(path(key)), ": ", path(key), ": unknown key; ", expected);
    }

    std::string path(const std::string& key) const { return levels_.empty() ? key : below(levels_.back().path, key); }

    // Where a value was given: "FILE:LINE", or the --set; empty where nobody did.
    std::string given_at(const std::string& path) const {
        for (std::string part = path;;) {
            if (const auto found = overridden_.find(part); found != overridden_.end()) return found->second;
            const std::size_t dot = part.rfind('.');
            if (dot == std::string::npos) break;
            part.resize(dot);
        }
        const auto found = places_.find(path);
        return found != places_.end() ? found->second : "";
    }

    std::string place(const std::string& path) const {
        const std::string given = given_at(path);
        return given.empty() ? name_ : given;
    }

    YAML::Node find(const std::string& key) {
        Level& level = levels_.back();
        level.known.push_back(key);
        for (const auto& [name, node] : level.entries) {
            if (name == key) return node;
        }
        return YAML::Node(YAML::NodeType::Undefined);
    }

    // Whether a map has that key, or that key of a map in it.
    static bool has(const YAML::Node& map, const std::string& key) {
        if (!map.IsMap()) return false;
        const std::size_t first_dot = std::min(key.find('.'), key.size());
        const YAML::Node value = map[key.substr(0, first_dot)];
        return value.IsDefined() && (first_dot == key.size() || has(value, key.substr(first_dot + 1)));
    }

    [[noreturn]] void mismatch(const std::string& key, const YAML::Node& node, const std::string& expected) const {
        throw Error("config", place(path(key)), ": ", path(key), ": found ", describe(node), ", expected ", expected);
    }

    std::int64_t integer(const std::string& key, const YAML::Node& node, const Limits& limits) const {
        const std::optional<std::int64_t> value = node.IsScalar() ? parse_integer(node.Scalar()) : std::nullopt;
        if (!value || !limits.allow(static_cast<double>(*value))) {
            mismatch(key, node, limited("a whole number", limits));
        }
        if (std::isinf(limits.high) && static_cast<double>(*value) > kMostCount) {
            Limits held = limits;
            held.high = kMostCount;
            mismatch(key, node, limited("a whole number", held));
        }
        return *value;
    }

    double real(const std::string& key, const YAML::Node& node, const Limits& limits) const {
        const std::optional<double> value = node.IsScalar() ? parse_number(node.Scalar()) : std::nullopt;
        if (!value || !limits.allow(*value)) mismatch(key, node, limited("a number", limits));
        return *value;
    }

    std::string words(const std::string& key, const YAML::Node& node) const {
        if (!node.IsScalar() && !node.IsNull()) mismatch(key, node, "a text");
        return node.IsNull() ? "" : node.Scalar();
    }

    template <class T, class Convert>
    void read_list(const std::string& key, std::vector<T>& value, const std::string& items, const Convert& convert) {
        const YAML::Node node = find(key);
        if (!node) return;
        if (node.IsMap()) mismatch(key, node, "a list of " + items);
        value.clear();
        if (node.IsScalar()) value.push_back(convert(node));
        if (node.IsSequence()) {
            for (const YAML::Node& item : node) value.push_back(convert(item));
        }
    }

    std::string name_;
    std::map<std::string, std::string> overridden_;  // by path: the --set
    std::map<std::string, std::string> places_;      // by path: FILE:LINE
    std::vector<Level> levels_;
};

class Writer : public FieldVisitor {
  public:
    explicit Writer(bool comments) : comments_(comments) {}

    std::string text() const { return text_; }
    bool reads() const override { return false; }
    bool gives(const std::string&) const override { return false; }

    void field(const std::string& key, bool& value, const std::string& comment) override {
        line(key, value ? "true" : "false", comment);
    }
    void field(const std::string& key, std::int64_t& value, const std::string& comment, Limits) override {
        line(key, str(value), comment);
    }
    void field(const std::string& key, double& value, const std::string& comment, Limits) override {
        line(key, number(value), comment);
    }
    void field(const std::string& key, std::string& value, const std::string& comment,
               const std::vector<std::string>& choices) override {
        YAML::Emitter quoted;
        if (value.empty()) quoted << YAML::DoubleQuoted;
        quoted << value;
        line(key, quoted.c_str(), choices.empty() ? comment : comment + ": " + join(choices, ", "));
    }
    void field(const std::string& key, std::vector<std::int64_t>& value, const std::string& comment, Limits) override {
        list(key, value, comment, [](std::int64_t item) { return str(item); });
    }
    void field(const std::string& key, std::vector<double>& value, const std::string& comment, Limits) override {
        list(key, value, comment, number);
    }
    void field(const std::string& key, std::vector<std::string>& value, const std::string& comment) override {
        list(key, value, comment, quoted_in_list);
    }
    void reject(const std::string&, const std::string&, const std::vector<std::string>&) override {}

  protected:
    void begin_section(const std::string& key, const std::string& comment) override {
        if (!text_.empty() && depth_ == 0) text_ += '\n';
        if (comments_ && !comment.empty()) text_ += indent() + "# " + comment + '\n';
        text_ += indent() + key + ":\n";
        ++depth_;
    }
    void end_section() override { --depth_; }

  private:
    std::string indent() const { return std::string(2 * depth_, ' '); }

    void line(const std::string& key, const std::string& value, const std::string& comment) {
        std::string written = indent() + key + ": " + value;
        if (comments_ && !comment.empty()) {
            written.resize(std::max<std::size_t>(written.size() + 2, 36), ' ');
            written += "# " + comment;
        }
        text_ += written + '\n';
    }

    template <class T, class Format>
    void list(const std::string& key, const std::vector<T>& value, const std::string& comment, const Format& format) {
        std::vector<std::string> items;
        for (const T& item : value) items.push_back(format(item));
        line(key, '[' + join(items, ", ") + ']', comment);
    }

    bool comments_;
    std::size_t depth_ = 0;
    std::string text_;
};

}  // namespace

std::string Limits::text() const {
    const auto bound = [](double value) {  // 1000000000 rather than 1e+09
        constexpr double kExact = 0x1p53;
        const bool whole = value == std::floor(value) && std::abs(value) < kExact;
        return whole ? str(static_cast<std::int64_t>(value)) : number(value);
    };
    std::string words;
    if (std::isfinite(low)) words = (low_excluded ? "above " : "of at least ") + bound(low);
    if (std::isfinite(high)) words += (words.empty() ? "of at most " : " and at most ") + bound(high);
    return words;
}

ConfigSource config_from_file(const std::filesystem::path& path, std::vector<std::string> overrides) {
    return {read_yaml(path), path.string(), std::move(overrides), path.parent_path()};
}

void read_fields(const ConfigSource& source, const std::function<void(FieldVisitor&)>& visit) {
    Reader reader(source);
    visit(reader);
    reader.finish();
}

std::string write_fields(const std::function<void(FieldVisitor&)>& visit, bool comments) {
    Writer writer(comments);
    visit(writer);
    return writer.text();
}

}  // namespace dynvit
