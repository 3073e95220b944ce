// One list of fields a settings struct: it reads YAML, writes it back with comments, and serves --set.
//
//     struct Schedule {
//         double lr = 1e-3;
//         void fields(FieldVisitor& v) { v.field("lr", lr, "learning rate at the end of the warm-up", above(0)); }
//     };
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace dynvit {

/// What a number may be.
struct Limits {
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();
    bool low_excluded = false;

    bool allow(double value) const { return (low_excluded ? value > low : value >= low) && value <= high; }
    std::string text() const;  // "above 0 and at most 1"; empty where nothing is excluded
};

inline Limits at_least(double low) {
    return {.low = low};
}
inline Limits above(double low) {
    return {.low = low, .low_excluded = true};
}
inline Limits between(double low, double high) {
    return {.low = low, .high = high};
}
inline Limits above_up_to(double low, double high) {
    return {.low = low, .high = high, .low_excluded = true};
}

/// Meets every field of a settings struct, in order. Readers assign the value, writers take it.
class FieldVisitor {
  public:
    virtual ~FieldVisitor() = default;

    virtual void field(const std::string& key, bool& value, const std::string& comment) = 0;
    virtual void field(const std::string& key, std::int64_t& value, const std::string& comment, Limits limits = {}) = 0;
    virtual void field(const std::string& key, double& value, const std::string& comment, Limits limits = {}) = 0;
    /// @param choices the strings that are allowed; empty: any
    virtual void field(const std::string& key, std::string& value, const std::string& comment,
                       const std::vector<std::string>& choices = {}) = 0;
    /// Lists: the limits hold for each element. A single value is read as a list of one.
    virtual void field(const std::string& key, std::vector<std::int64_t>& value, const std::string& comment,
                       Limits limits = {}) = 0;
    virtual void field(const std::string& key, std::vector<double>& value, const std::string& comment,
                       Limits limits = {}) = 0;
    virtual void field(const std::string& key, std::vector<std::string>& value, const std::string& comment) = 0;

    /// A nested settings struct under its own key.
    template <class Settings>
    void section(const std::string& key, Settings& settings, const std::string& comment) {
        begin_section(key, comment);
        settings.fields(*this);
        end_section();
    }

    /// True while values are being read: a struct may then fill in what depends on a field read before.
    virtual bool reads() const = 0;

    /// Whether the source that is being read says this value itself, however it does: then no other place decides it.
    /// False for writers. @param key of this struct, or of a section in it: "model.num_classes"
    virtual bool gives(const std::string& key) const = 0;

    /// Throws an Error about a value that is right by itself and wrong beside others. It names the key, and the file
    /// and line, or the `--set`, that gave it. Writers ignore it.
    /// @param key of this struct, or of a section in it: "loss.kl"
    /// @param beside the keys that the value does not go with: where nobody gave `key`, the Error names the place of
    /// the first of these that somebody gave
    virtual void reject(const std::string& key, const std::string& found_and_expected,
                        const std::vector<std::string>& beside = {}) = 0;

  protected:
    virtual void begin_section(const std::string& key, const std::string& comment) = 0;
    virtual void end_section() = 0;
};

}  // namespace dynvit
