#include "arguments.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/text.hpp"

namespace dynvit::tool {
namespace {

constexpr const char* kEmpty = "found an empty text (an unset shell variable?), expected ";
// Counts that are multiplied with each other stay within 64 bits.
constexpr std::int64_t kMostCount = 1'000'000'000;

// What a type's name in --help stands for. Others, such as KEY=VALUE, are texts.
enum class Kind { kText, kWhole, kSeed, kNumber };

Kind kind_of(const CLI::Option& option) {
    const std::string type = option.get_type_name();
    if (type == "INT") return Kind::kWhole;
    if (type == "UINT") return Kind::kSeed;
    return type == "FLOAT" ? Kind::kNumber : Kind::kText;
}

const char* expected(Kind kind) {
    if (kind == Kind::kText) return "a value";
    return kind == Kind::kNumber ? "a number" : "a whole number";
}

// Puts a value as CLI11's own conversion takes it. @return what is wrong with it
std::string read_whole(std::string& value, Kind kind) {
    const std::optional<std::int64_t> number = parse_integer(value);
    if (!number) return str("found '", value, "', expected a whole number");
    if (kind == Kind::kSeed && *number < 0) return str("found ", value, ", expected at least 0");
    if (kind == Kind::kWhole && *number > kMostCount) return str("found ", value, ", expected at most ", kMostCount);
    value = str(*number);
    return {};
}

std::string read_value(std::string& value, Kind kind) {
    if (value.empty()) return str(kEmpty, expected(kind));
    if (kind == Kind::kWhole || kind == Kind::kSeed) return read_whole(value, kind);
    if (kind == Kind::kNumber && !parse_number(value)) return str("found '", value, "', expected a number");
    return {};
}

// "-k", or "--keep-ratio=0.7", of the command or of the program above it.
bool names_option(const std::string& word, const CLI::App* command) {
    if (word.size() < 2 || word[0] != '-') return false;
    const std::string name = word.substr(0, word.find('='));
    for (; command; command = command->get_parent()) {
        if (command->get_option_no_throw(name)) return true;
    }
    return false;
}

std::string_view trimmed(std::string_view text) {
    while (text.starts_with(' ')) text.remove_prefix(1);
    while (text.ends_with(' ')) text.remove_suffix(1);
    return text;
}

// The texts between a word's commas, each not empty.
std::vector<std::string> split(const std::string& name, std::string_view word) {
    if (word.size() > 1 && word.starts_with('[') && word.ends_with(']')) word = word.substr(1, word.size() - 2);
    std::vector<std::string> items;
    for (std::size_t from = 0; from <= word.size();) {
        const std::size_t comma = std::min(word.find(',', from), word.size());
        items.emplace_back(trimmed(word.substr(from, comma - from)));
        if (items.back().empty()) {
            throw CLI::ValidationError(name, str("found '", word,
                                                 "', which has an empty text, expected values between "
                                                 "commas"));
        }
        from = comma + 1;
    }
    return items;
}

void convert(const std::string& item, double& value) {
    value = *parse_number(item);
}
void convert(const std::string& item, std::int64_t& value) {
    value = *parse_integer(item);
}
void convert(const std::string& item, std::string& value) {
    value = item;
}

template <class T>
CLI::Option* add_list_of(CLI::App& command, const std::string& name, std::vector<T>& values,
                         const std::string& description, const CLI::Validator& each, Kind kind, const char* type) {
    const std::string shown = name.substr(name.find("--"));
    const auto read = [&values, each, kind, shown](const std::vector<std::string>& words) {
        std::vector<T> found;
        for (const std::string& word : words) {
            for (std::string& item : split(shown, word)) {
                std::string fault = read_value(item, kind);
                if (fault.empty()) fault = each(item);
                if (!fault.empty()) throw CLI::ValidationError(shown, fault);
                convert(item, found.emplace_back());
            }
        }
        values = std::move(found);
    };
    CLI::Option* option = command.add_option_function<std::vector<std::string>>(name, read, description);
    option->default_function([&values] { return values.empty() ? "" : join(values, ","); });
    return option->allow_extra_args(false)->take_all()->type_name(type);
}

// --name of each option that can be given there, and the name of each command.
std::vector<std::string> known_words(const CLI::App& program) {
    std::vector<std::string> words;
    const CLI::App* command = &program;
    while (command) {
        for (const CLI::Option* option : command->get_options()) {
            for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
        }
        const std::vector<CLI::App*> chosen = command->get_subcommands();
        if (chosen.empty()) {
            for (const CLI::App* one : command->get_subcommands({})) words.push_back(one->get_name());
        }
        command = chosen.empty() ? nullptr : chosen.front();
    }
    return words;
}

std::string suggestion(const std::string& word, const CLI::App& program) {
    const std::string meant = nearest_name(word.substr(0, word.find('=')), known_words(program));
    return meant.empty() ? "" : str("; did you mean ", meant, '?');
}

// The word that begins like an option and is none; "" where there is none.
std::string unknown_option(const std::vector<std::string>& words) {
    const auto option = std::ranges::find_if(words, [](const std::string& word) { return word.starts_with('-'); });
    return option == words.end() ? "" : *option;
}

}  // namespace

CLI::Validator within(const Limits& limits) {
    const auto check = [limits](const std::string& text) -> std::string {
        const std::optional<double> value = parse_number(text);
        if (!value) return str("found '", text, "', expected a number");
        if (limits.allow(*value)) return {};
        Limits passed = limits;  // only the bound that the number is beyond
        (*value > limits.high ? passed.low : passed.high) = std::numeric_limits<double>::quiet_NaN();
        std::string bound = passed.text();
        if (bound.starts_with("of ")) bound.erase(0, 3);
        return str("found ", text, ", expected ", bound);
    };
    return {check, ""};
}

CLI::Validator one_of(const std::vector<std::string>& names) {
    const auto check = [names](const std::string& text) -> std::string {
        if (std::ranges::find(names, text) != names.end()) return {};
        return str("found '", text, "', expected one of ", join(names, ", "));
    };
    return {check, ""};
}

CLI::Validator byte_size() {
    const auto convert_size = [](std::string& text) -> std::string {
        std::string fault = str("found '", text, "', expected a size such as 256MB or 1.5GiB");
        const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
        const std::optional<double> number = parse_number(text.substr(0, digits));
        if (!number) return fault;
        std::string unit = lower_case(trimmed(text.substr(digits)));
        if (unit.ends_with('b')) unit.pop_back();
        const bool binary = unit.ends_with('i');
        if (binary) unit.pop_back();
        constexpr std::string_view kUnits = "kmgt";
        std::size_t power = 0;
        if (!unit.empty()) power = kUnits.find(unit) + 1;
        if (unit.size() > 1 || (!unit.empty() && power == 0) || (binary && unit.empty())) return fault;
        const double bytes = std::floor(*number * std::pow(binary ? 1024.0 : 1000.0, static_cast<double>(power)));
        constexpr double kMost = 1e18;
        if (bytes < 1 || bytes > kMost) return fault;
        text = str(static_cast<std::uint64_t>(bytes));
        return {};
    };
    return {convert_size, ""};
}

CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<double>& values,
                      const std::string& description, const CLI::Validator& each) {
    return add_list_of(command, name, values, description, each, Kind::kNumber, "FLOAT,");
}

CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<std::int64_t>& values,
                      const std::string& description, const CLI::Validator& each) {
    return add_list_of(command, name, values, description, each, Kind::kWhole, "INT,");
}

CLI::Option* add_list(CLI::App& command, const std::string& name, std::vector<std::string>& values,
                      const std::string& description, const CLI::Validator& each) {
    return add_list_of(command, name, values, description, each, Kind::kText, "TEXT,");
}

void guard_options(CLI::App& program) {
    for (CLI::Option* option : program.get_options()) {
        if (option->get_items_expected_max() == 0) continue;  // a flag
        const auto read = [kind = kind_of(*option), command = &program](std::string& value) {
            if (!names_option(value, command)) return read_value(value, kind);
            return str("found the option ", value, " in its value's place, expected ", expected(kind));
        };
        option->transform(CLI::Validator(read, ""));
    }
    for (CLI::App* command : program.get_subcommands({})) guard_options(*command);
}

void check_words(int argc, char** argv) {
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--") return;
        if (word.size() > 3 && word.starts_with("--") && word.find('=') == word.size() - 1) {
            throw Error("arguments", word.substr(0, word.size() - 1), ": ", kEmpty, "a value");
        }
    }
}

std::string explain(const CLI::ParseError& error, const CLI::App& program) {
    std::string text = error.what();
    const std::string name = text.substr(0, text.find(": "));
    const std::vector<std::string> left = program.remaining(true);
    const bool about_names =
        dynamic_cast<const CLI::ExtrasError*>(&error) || dynamic_cast<const CLI::RequiredError*>(&error);
    if (const std::string option = unknown_option(left); about_names && !option.empty()) {
        return str("unknown option ", option, suggestion(option, program));
    }
    if (dynamic_cast<const CLI::ExtrasError*>(&error)) return str("found '", left.front(), "', expected nothing more");
    if (dynamic_cast<const CLI::RequiredError*>(&error)) {
        if (left.empty() || !program.get_subcommands().empty()) return text;
        return str(text, ", found ", left.front(), suggestion(left.front(), program));
    }
    if (dynamic_cast<const CLI::ArgumentMismatch*>(&error)) {
        if (text.find("missing") != std::string::npos) return str(name, ": found nothing after it, expected a value");
        return str(name, ": found more than once, expected one value");
    }
    if (dynamic_cast<const CLI::ExcludesError*>(&error)) {
        constexpr std::string_view kExcludes = " excludes ";
        const std::size_t at = text.find(kExcludes);
        if (at != std::string::npos) {
            return str(text.substr(0, at), " and ", text.substr(at + kExcludes.size()), ": found both, expected one");
        }
    }
    return text;
}

}  // namespace dynvit::tool
