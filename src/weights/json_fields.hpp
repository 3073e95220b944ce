// A JSON object's values, checked as they are taken: a key that is missing or null gives nothing, one of another type
// an Error that names file and key.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace dynvit {

class JsonFields {
  public:
    JsonFields(std::string file, nlohmann::json object) : file_(std::move(file)), object_(std::move(object)) {}
    /// Throws Error naming the file for what is no JSON object.
    static JsonFields of_file(const std::filesystem::path& path);

    const std::string& file() const { return file_; }
    std::size_t size() const { return object_.size(); }
    bool has(const std::string& key) const;
    bool is_number(const std::string& key) const;
    JsonFields section(const std::string& key) const;
    std::string text(const std::string& key) const;
    std::vector<std::string> texts(const std::string& key) const;
    std::optional<std::int64_t> number(const std::string& key) const;
    std::vector<std::int64_t> numbers(const std::string& key) const;  // one number is a list of one
    std::optional<double> real(const std::string& key) const;
    std::vector<double> reals(const std::string& key) const;
    bool truth(const std::string& key, bool otherwise = false) const;
    /// Keys, in order.
    std::vector<std::string> keys() const;

  private:
    [[noreturn]] void fail(const std::string& key, const nlohmann::json& found, const char* expected) const;
    const nlohmann::json* find(const std::string& key) const;

    std::string file_;
    nlohmann::json object_;
};

}  // namespace dynvit
