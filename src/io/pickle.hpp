// Python's pickles, read as plain data. Nothing is imported, looked up or called: what Python would make by a call
// stays here a value that names the callable and its arguments, and whoever reads the pickle decides which ones mean
// something. The format: Python's pickletools module, protocols 0 to 5 without out-of-band buffers and the extension
// registry.
#pragma once

#include <cstdint>
#include <deque>
#include <istream>
#include <string>
#include <string_view>
#include <vector>

namespace dynvit {

/// A value of a pickle. Values point at each other and may do so in circles.
struct PickleValue {
    enum class Kind {
        kNone,
        kBool,    // integer: 0 or 1
        kInt,     // integer
        kBigInt,  // text: the little-endian bytes of one that has more than 64 bits
        kFloat,   // number
        kString,  // text: UTF-8, but for strings of Python 2 and lone surrogates
        kBytes,   // text; bytearray too
        kList,    // items
        kTuple,   // items
        kDict,  // items: key, value, key, value ... as they were set, so the last of equal keys counts; OrderedDict too
        kGlobal,  // items: module, name; a class or function
        kObject,  // items: the callable and a tuple of its arguments, then its state, if it is given one; nothing for a
                  // set; its members are skipped
        kPersistent,  // items: the identity of something that stands outside of the pickle; its text in protocol 0
    };

    Kind kind = Kind::kNone;
    std::int64_t integer = 0;
    double number = 0;
    std::string text;
    std::vector<const PickleValue*> items;

    bool is(Kind wanted) const { return kind == wanted; }
    /// Whether it is this class or function.
    bool is_global(std::string_view module, std::string_view name) const;
    /// "a string", "a list", "an object of "argparse.Namespace"", for messages.
    std::string description() const;
};

/// A pickle's values, and the one that it is a pickle of.
struct Pickle {
    std::deque<PickleValue> values;
    const PickleValue* root = nullptr;
};

/// Reads the pickle that starts where the stream stands; afterwards the stream stands after it.
/// Reading takes time and memory in proportion to the bytes, at most 2^22 operations, whatever the bytes are.
/// @param bytes how many the stream still has
/// @param place what an error names, as "w.pth: data.pkl"
/// Throws Error("pth", place ", byte N: ...") for a pickle that is cut off, malformed, or of another protocol.
Pickle read_pickle(std::istream& stream, std::uint64_t bytes, const std::string& place);

}  // namespace dynvit
