#include "pickle.hpp"

#include <bit>
#include <charconv>
#include <optional>
#include <unordered_map>
#include <utility>

#include "dynvit/core/error.hpp"
#include "input_file.hpp"

namespace dynvit {
namespace {

using Kind = PickleValue::Kind;

// What bounds memory: an operation makes five values at most, nearly always one. A checkpoint of a thousand tensors
// and its optimizer has some 10^5.
constexpr std::size_t kMaxOperations = std::size_t{1} << 22;

enum Operation : unsigned char {
    kMark = '(',
    kStop = '.',
    kPop = '0',
    kPopMark = '1',
    kDup = '2',
    kBinFloat = 'G',
    kBinInt = 'J',
    kBinInt1 = 'K',
    kBinInt2 = 'M',
    kNone = 'N',
    kBinPersId = 'Q',
    kReduce = 'R',
    kBinString = 'T',
    kShortBinString = 'U',
    kBinUnicode = 'X',
    kAppend = 'a',
    kBuild = 'b',
    kGlobal = 'c',
    kEmptyDict = '}',
    kAppends = 'e',
    kBinGet = 'h',
    kLongBinGet = 'j',
    kEmptyList = ']',
    kObj = 'o',
    kBinPut = 'q',
    kLongBinPut = 'r',
    kSetItem = 's',
    kTuple = 't',
    kEmptyTuple = ')',
    kSetItems = 'u',
    kBinBytes = 'B',
    kShortBinBytes = 'C',
    kProto = 0x80,
    kNewObj = 0x81,
    kTuple1 = 0x85,
    kTuple2 = 0x86,
    kTuple3 = 0x87,
    kNewTrue = 0x88,
    kNewFalse = 0x89,
    kLong1 = 0x8a,
    kLong4 = 0x8b,
    kShortBinUnicode = 0x8c,
    kBinUnicode8 = 0x8d,
    kBinBytes8 = 0x8e,
    kEmptySet = 0x8f,
    kAddItems = 0x90,
    kFrozenSet = 0x91,
    kNewObjEx = 0x92,
    kStackGlobal = 0x93,
    kMemoize = 0x94,
    kFrame = 0x95,
    kByteArray8 = 0x96,
    // Of protocol 0, in lines of text.
    kInt = 'I',
    kLong = 'L',
    kFloat = 'F',
    kString = 'S',
    kUnicode = 'V',
    kPersId = 'P',
    kGet = 'g',
    kPut = 'p',
    kDict = 'd',
    kList = 'l',
    kInst = 'i',
};

constexpr std::uint64_t kNewestProtocol = 5;
constexpr std::size_t kMostDigits = 4300;  // of a number in text, as Python's int() has it

// ---- Text of protocol 0 ---------------------------------------------------------------------------------------------

/// The little-endian two's complement bytes of a number of decimal digits; nothing where it is none.
std::optional<std::string> bytes_of_decimal(std::string_view text) {
    const bool negative = text.starts_with('-');
    if (negative) text.remove_prefix(1);
    if (text.empty() || text.size() > kMostDigits) return std::nullopt;
    std::string bytes;
    for (const char digit : text) {
        if (digit < '0' || digit > '9') return std::nullopt;
        unsigned carry = static_cast<unsigned>(digit - '0');
        for (char& byte : bytes) {
            carry += 10U * static_cast<unsigned char>(byte);
            byte = static_cast<char>(carry & 0xffU);
            carry >>= 8U;
        }
        if (carry > 0) bytes += static_cast<char>(carry);
    }
    if (bytes.empty() || (bytes.back() & 0x80)) bytes += '\0';  // the sign
    if (!negative) return bytes;
    unsigned carry = 1;
    for (char& byte : bytes) {
        carry += ~static_cast<unsigned>(byte) & 0xffU;
        byte = static_cast<char>(carry & 0xffU);
        carry >>= 8U;
    }
    return bytes;
}

/// A number of so many digits to this base at the beginning of the text, which are taken off it.
std::optional<std::uint32_t> take_digits(std::string_view& text, std::size_t count, int base) {
    if (text.size() < count) return std::nullopt;
    const std::string digits(text.substr(0, count));
    std::uint32_t value = 0;
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + count, value, base);
    if (problem != std::errc() || end != digits.data() + count) return std::nullopt;
    text.remove_prefix(count);
    return value;
}

void append_utf8(std::string& text, std::uint32_t code) {
    const auto rest = [&](unsigned shift) { text += static_cast<char>(0x80U | ((code >> shift) & 0x3fU)); };
    if (code < 0x80) {
        text += static_cast<char>(code);
    } else if (code < 0x800) {
        text += static_cast<char>(0xc0U | code >> 6U);
        rest(0);
    } else if (code < 0x10000) {
        text += static_cast<char>(0xe0U | code >> 12U);
        rest(6), rest(0);
    } else {
        text += static_cast<char>(0xf0U | code >> 18U);
        rest(12), rest(6), rest(0);
    }
}

/// What Python calls raw-unicode-escape: Latin-1 with \uXXXX and \UXXXXXXXX. Nothing for digits that are none.
std::optional<std::string> from_raw_unicode(std::string_view raw) {
    constexpr std::uint32_t kLargest = 0x10ffff;
    std::string text;
    while (!raw.empty()) {
        const bool four = raw.starts_with("\\u"), eight = raw.starts_with("\\U");
        if (four || eight) {
            raw.remove_prefix(2);
            const auto code = take_digits(raw, four ? 4 : 8, 16);
            if (!code || *code > kLargest) return std::nullopt;
            append_utf8(text, *code);
        } else {
            append_utf8(text, static_cast<unsigned char>(raw.front()));
            raw.remove_prefix(1);
        }
    }
    return text;
}

/// The bytes of a string of Python 2 as its source has them, in quotes. Nothing where it is none.
std::optional<std::string> from_quoted(std::string_view raw) {
    if (raw.size() < 2 || raw.front() != raw.back() || (raw.front() != '\'' && raw.front() != '"')) return std::nullopt;
    raw = raw.substr(1, raw.size() - 2);
    constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeant = "\\'\"\a\b\f\n\r\t\v";
    std::string text;
    while (!raw.empty()) {
        const char letter = raw.front();
        raw.remove_prefix(1);
        if (letter != '\\') {
            text += letter;
            continue;
        }
        if (raw.empty()) return std::nullopt;
        const std::size_t known = kLetters.find(raw.front());
        std::optional<std::uint32_t> code;
        if (known != std::string_view::npos) {
            code = static_cast<unsigned char>(kMeant[known]);
            raw.remove_prefix(1);
        } else if (raw.starts_with('x')) {
            raw.remove_prefix(1);
            code = take_digits(raw, 2, 16);
        } else {
            code = take_digits(raw, 3, 8);
        }
        if (!code || *code > 0xff) return std::nullopt;
        text += static_cast<char>(*code);
    }
    return text;
}

/// The stack machine that a pickle is a program for.
class Machine {
  public:
    Machine(std::istream& stream, std::uint64_t bytes, const std::string& place)
        : stream_(stream), left_(bytes), place_(place) {}

    Pickle run() {
        while (true) {
            begin_ = position_;
            count_operations(1);
            const auto operation = static_cast<unsigned char>(number(1));
            if (operation == kStop) return finish();
            step(operation);
        }
    }

  private:
    template <class... Parts>
    [[noreturn]] void fail(const Parts&... parts) const {
        throw Error("pth", place_, ", byte ", begin_, ": ", parts...);
    }

    void count_operations(std::size_t more) {
        operations_ += more;
        if (operations_ > kMaxOperations) fail("has more than ", kMaxOperations, " operations");
    }

    // ---- The bytes ----

    void take(char* target, std::uint64_t count) {
        if (count > left_) fail("wants ", count, " bytes where ", left_, " are left");
        stream_.read(target, static_cast<std::streamsize>(count));
        if (static_cast<std::uint64_t>(stream_.gcount()) != count) fail("could not be read to its end");
        left_ -= count;
        position_ += count;
    }

    /// An unsigned little-endian number of up to 8 bytes.
    std::uint64_t number(int bytes) {
        char raw[8];
        take(raw, static_cast<std::uint64_t>(bytes));
        std::uint64_t value = 0;
        for (int i = bytes; i-- > 0;) value = value << 8 | static_cast<unsigned char>(raw[i]);
        return value;
    }

    /// As many bytes as a number of `length_bytes` bytes before them says.
    std::string counted(int length_bytes) {
        const std::uint64_t length = number(length_bytes);
        if (length > left_) fail("a length of ", length, " where ", left_, " bytes are left");
        std::string text(length, '\0');
        take(text.data(), length);
        return text;
    }

    std::string line() {
        std::string text;
        for (char letter = 0;; text += letter) {
            take(&letter, 1);
            if (letter == '\n') return text;
        }
    }

    // ---- Values and the stack ----

    PickleValue* make(Kind kind) {
        PickleValue& value = pickle_.values.emplace_back();
        value.kind = kind;
        return &value;
    }

    PickleValue* make_int(std::int64_t integer, Kind kind = Kind::kInt) {
        PickleValue* value = make(kind);
        value->integer = integer;
        return value;
    }

    PickleValue* make_text(Kind kind, std::string text) {
        PickleValue* value = make(kind);
        value->text = std::move(text);
        return value;
    }

    PickleValue* make_items(Kind kind, std::vector<const PickleValue*> items) {
        PickleValue* value = make(kind);
        value->items = std::move(items);
        return value;
    }

    PickleValue* make_global(std::string module, std::string name) {
        return make_items(Kind::kGlobal,
                          {make_text(Kind::kString, std::move(module)), make_text(Kind::kString, std::move(name))});
    }

    /// An int of these little-endian two's complement bytes.
    PickleValue* make_long(const std::string& bytes) {
        if (bytes.size() > 8) return make_text(Kind::kBigInt, bytes);
        const bool negative = !bytes.empty() && (bytes.back() & 0x80);
        std::uint64_t value = negative ? ~std::uint64_t{0} : 0;
        for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
        return make_int(static_cast<std::int64_t>(value));
    }

    void push(PickleValue* value) { stack_.push_back(value); }

    /// Values above the last mark; those below it are out of reach until the mark is taken off.
    std::size_t reachable() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }

    PickleValue* top() {
        if (reachable() == 0) fail("needs a value where the stack has none");
        return stack_.back();
    }

    PickleValue* pop() {
        PickleValue* value = top();
        stack_.pop_back();
        return value;
    }

    std::vector<PickleValue*> pop_to_mark() {
        if (marks_.empty()) fail("needs a mark where the stack has none");
        const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
        std::vector<PickleValue*> values(first, stack_.end());
        stack_.erase(first, stack_.end());
        marks_.pop_back();
        return values;
    }

    PickleValue* make_tuple(std::size_t count) {
        if (reachable() < count) fail("a tuple of ", count, " where the stack has ", reachable());
        const auto first = stack_.end() - static_cast<std::ptrdiff_t>(count);
        PickleValue* tuple = make_items(Kind::kTuple, {first, stack_.end()});
        stack_.erase(first, stack_.end());
        return tuple;
    }

    PickleValue* make_tuple(const std::vector<PickleValue*>& values) {
        return make_items(Kind::kTuple, {values.begin(), values.end()});
    }

    // ---- The memo ----

    void remember(std::uint64_t index) { memo_[index] = top(); }

    void recall(std::uint64_t index) {
        const auto found = memo_.find(index);
        if (found == memo_.end()) fail("memo entry ", index, " was not written before");
        push(found->second);
    }

    // ---- What Python would call ----

    /// What `callable(*arguments)` stands for.
    PickleValue* call(const PickleValue* callable, const PickleValue* arguments) {
        const bool possible =
            callable->is(Kind::kGlobal) || callable->is(Kind::kObject) || callable->is(Kind::kPersistent);
        if (!possible) fail("calls ", callable->description());
        if (!arguments->is(Kind::kTuple)) fail("passes ", arguments->description(), ", expected a tuple of arguments");
        if (callable->is_global("collections", "OrderedDict")) return make_ordered_dict(*arguments);
        return make_items(Kind::kObject, {callable, arguments});
    }

    /// OrderedDict(), or OrderedDict([[key, value], ...]) as Python 2 writes it.
    PickleValue* make_ordered_dict(const PickleValue& arguments) {
        PickleValue* dict = make(Kind::kDict);
        if (arguments.items.empty()) return dict;
        count_operations(arguments.items[0]->items.size());  // the only place that copies what it does not take off
        for (const PickleValue* pair : arguments.items[0]->items) {
            if (!pair->is(Kind::kList) && !pair->is(Kind::kTuple)) fail("an OrderedDict of ", pair->description());
            if (pair->items.size() != 2) fail("an OrderedDict of lists of ", pair->items.size(), ", expected pairs");
            dict->items.insert(dict->items.end(), pair->items.begin(), pair->items.end());
        }
        return dict;
    }

    void global_from_stack() {
        PickleValue* name = pop();
        PickleValue* module = pop();
        if (!module->is(Kind::kString) || !name->is(Kind::kString)) {
            fail("a class named by ", module->description(), " and ", name->description(), ", expected two strings");
        }
        push(make_items(Kind::kGlobal, {module, name}));  // no copies: one long string may serve many times
    }

    void call_class_before_mark() {
        std::vector<PickleValue*> values = pop_to_mark();
        if (values.empty()) fail("an object without a class");
        const PickleValue* callable = values.front();
        values.erase(values.begin());
        push(call(callable, make_tuple(values)));
    }

    void new_object_with_keywords() {
        pop();  // the keyword arguments
        const PickleValue* arguments = pop();
        push(call(pop(), arguments));
    }

    void append(const std::vector<PickleValue*>& values) {
        PickleValue* target = top();
        if (target->is(Kind::kObject)) return;
        if (!target->is(Kind::kList)) fail("appends to ", target->description());
        target->items.insert(target->items.end(), values.begin(), values.end());
    }

    void set_items(const std::vector<PickleValue*>& values) {
        PickleValue* target = top();
        if (values.size() % 2 != 0) fail("a key without a value");
        if (target->is(Kind::kObject)) return;
        if (!target->is(Kind::kDict)) fail("sets items of ", target->description());
        target->items.insert(target->items.end(), values.begin(), values.end());
    }

    void add_items() {
        pop_to_mark();
        if (!top()->is(Kind::kObject)) fail("adds members to ", top()->description());
    }

    void build() {
        const PickleValue* state = pop();
        PickleValue* target = top();
        if (target->is(Kind::kObject) && target->items.size() == 2) target->items.push_back(state);
        if (!target->is(Kind::kObject) && !target->is(Kind::kDict) && !target->is(Kind::kPersistent)) {
            fail("gives a state to ", target->description());
        }
    }

    // ---- The program ----

    void step(unsigned char operation) {
        // clang-format off
        switch (operation) {
            case kProto: return check_protocol();
            case kFrame: return check_frame();
            case kMark: return marks_.push_back(stack_.size());
            case kPop: return pop_value_or_mark();
            case kPopMark: return static_cast<void>(pop_to_mark());
            case kDup: return push(top());

            case kNone: return push(make(Kind::kNone));
            case kNewTrue: return push(make_int(1, Kind::kBool));
            case kNewFalse: return push(make_int(0, Kind::kBool));
            case kBinInt: return push(make_int(static_cast<std::int32_t>(number(4))));
            case kBinInt1: return push(make_int(static_cast<std::int64_t>(number(1))));
            case kBinInt2: return push(make_int(static_cast<std::int64_t>(number(2))));
            case kLong1: return push(make_long(counted(1)));
            case kLong4: return push(make_long(counted(4)));
            case kBinFloat: return push_float();

            case kShortBinString:
            case kShortBinUnicode: return push(make_text(Kind::kString, counted(1)));
            case kBinString:
            case kBinUnicode: return push(make_text(Kind::kString, counted(4)));
            case kBinUnicode8: return push(make_text(Kind::kString, counted(8)));
            case kShortBinBytes: return push(make_text(Kind::kBytes, counted(1)));
            case kBinBytes: return push(make_text(Kind::kBytes, counted(4)));
            case kBinBytes8:
            case kByteArray8: return push(make_text(Kind::kBytes, counted(8)));

            case kInt: return push_int_line();
            case kLong: return push(make_decimal(line()));
            case kFloat: return push_float_line();
            case kString: return push_text_line("a string in quotes", from_quoted);
            case kUnicode: return push_text_line("raw Unicode", from_raw_unicode);

            case kEmptyTuple: return push(make_tuple(0));
            case kTuple1: return push(make_tuple(1));
            case kTuple2: return push(make_tuple(2));
            case kTuple3: return push(make_tuple(3));
            case kTuple: return push(make_tuple(pop_to_mark()));
            case kEmptyList: return push(make(Kind::kList));
            case kAppend: return append({pop()});
            case kAppends: return append(pop_to_mark());
            case kList: return make_list();
            case kEmptyDict: return push(make(Kind::kDict));
            case kDict: return make_dict();
            case kSetItem: return set_item();
            case kSetItems: return set_items(pop_to_mark());
            case kEmptySet: return push(make(Kind::kObject));
            case kFrozenSet: return make_frozen_set();
            case kAddItems: return add_items();

            case kBinPut: return remember(number(1));
            case kLongBinPut: return remember(number(4));
            case kPut: return remember(index_line());
            case kMemoize: return remember(memo_.size());
            case kBinGet: return recall(number(1));
            case kLongBinGet: return recall(number(4));
            case kGet: return recall(index_line());

            case kGlobal: return global_from_lines();
            case kStackGlobal: return global_from_stack();
            case kReduce:
            case kNewObj: return call_top();
            case kNewObjEx: return new_object_with_keywords();
            case kObj: return call_class_before_mark();
            case kInst: return call_class_of_lines();
            case kBuild: return build();
            case kPersId: return push(make_items(Kind::kPersistent, {make_text(Kind::kString, line())}));
            case kBinPersId: return push(make_items(Kind::kPersistent, {pop()}));

            default: fail("unknown operation ", int{operation}, ", expected one of protocols 0 to 5");
        }
        // clang-format on
    }

    void check_protocol() {
        const std::uint64_t protocol = number(1);
        if (protocol > kNewestProtocol) fail("protocol ", protocol, ", expected at most ", kNewestProtocol);
    }

    void check_frame() {
        const std::uint64_t length = number(8);
        if (length > left_) fail("a frame of ", length, " bytes where ", left_, " are left");
    }

    void pop_value_or_mark() {
        if (reachable() == 0 && !marks_.empty()) return marks_.pop_back();
        pop();
    }

    void make_frozen_set() {
        pop_to_mark();
        push(make(Kind::kObject));
    }

    void push_float() {  // the one big-endian number
        std::uint64_t bits = number(8), reversed = 0;
        for (int i = 0; i < 8; ++i, bits >>= 8) reversed = reversed << 8 | (bits & 0xff);
        PickleValue* value = make(Kind::kFloat);
        value->number = std::bit_cast<double>(reversed);
        push(value);
    }

    PickleValue* make_decimal(std::string text) {
        if (text.ends_with('L')) text.pop_back();  // as Python 2 writes it
        const auto bytes = bytes_of_decimal(text);
        if (!bytes) fail("a number of ", text.size(), " letters, expected at most ", kMostDigits, " decimal digits");
        return make_long(*bytes);
    }

    void push_int_line() {
        std::string text = line();
        if (text == "00" || text == "01") return push(make_int(text == "01", Kind::kBool));
        push(make_decimal(std::move(text)));
    }

    void push_float_line() {
        const std::string text = line();
        PickleValue* value = make(Kind::kFloat);
        const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value->number);
        if (problem == std::errc::invalid_argument || end != text.data() + text.size()) {
            fail("a number with a fraction that is none");
        }
        push(value);
    }

    void push_text_line(const char* what, std::optional<std::string> (*decode)(std::string_view)) {
        auto text = decode(line());
        if (!text) fail("a line that is not ", what);
        push(make_text(Kind::kString, std::move(*text)));
    }

    std::uint64_t index_line() {
        const std::string text = line();
        std::uint64_t index = 0;
        const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), index);
        if (problem != std::errc() || end != text.data() + text.size()) fail("a memo entry without a number");
        return index;
    }

    void make_list() {
        const std::vector<PickleValue*> values = pop_to_mark();
        push(make_items(Kind::kList, {values.begin(), values.end()}));
    }

    void make_dict() {
        const std::vector<PickleValue*> values = pop_to_mark();
        push(make(Kind::kDict));
        set_items(values);
    }

    void call_class_of_lines() {
        std::string module = line();
        const PickleValue* callable = make_global(std::move(module), line());
        push(call(callable, make_tuple(pop_to_mark())));
    }

    void set_item() {
        PickleValue* value = pop();
        PickleValue* key = pop();
        set_items({key, value});
    }

    void global_from_lines() {
        std::string module = line();
        push(make_global(std::move(module), line()));
    }

    void call_top() {
        const PickleValue* arguments = pop();
        push(call(pop(), arguments));
    }

    Pickle finish() {
        if (!marks_.empty() || stack_.size() != 1) {
            fail("ends with ", stack_.size(), " values and ", marks_.size(), " marks, expected one value");
        }
        pickle_.root = stack_.back();
        return std::move(pickle_);
    }

    std::istream& stream_;
    std::uint64_t left_;
    const std::string& place_;
    std::uint64_t position_ = 0;
    std::uint64_t begin_ = 0;  // of the operation at hand
    std::size_t operations_ = 0;

    Pickle pickle_;
    std::vector<PickleValue*> stack_;
    std::vector<std::size_t> marks_;  // sizes of the stack
    std::unordered_map<std::uint64_t, PickleValue*> memo_;
};

std::string global_name(const PickleValue& global) {
    return quoted(global.items[0]->text + '.' + global.items[1]->text);
}

}  // namespace

bool PickleValue::is_global(std::string_view module, std::string_view name) const {
    return kind == Kind::kGlobal && items[0]->text == module && items[1]->text == name;
}

std::string PickleValue::description() const {
    switch (kind) {
        case Kind::kNone:
            return "None";
        case Kind::kBool:
            return "a bool";
        case Kind::kInt:
        case Kind::kBigInt:
            return "an int";
        case Kind::kFloat:
            return "a float";
        case Kind::kString:
            return "a string";
        case Kind::kBytes:
            return "bytes";
        case Kind::kList:
            return "a list";
        case Kind::kTuple:
            return "a tuple";
        case Kind::kDict:
            return "a dict";
        case Kind::kGlobal:
            return "the class or function " + global_name(*this);
        case Kind::kObject:
            if (items.empty()) return "a set";
            return items[0]->is(Kind::kGlobal) ? "an object of " + global_name(*items[0]) : "an object";
        case Kind::kPersistent:
            return "a persistent object";
    }
    return {};
}

Pickle read_pickle(std::istream& stream, std::uint64_t bytes, const std::string& place) {
    return Machine(stream, bytes, place).run();
}

}  // namespace dynvit
