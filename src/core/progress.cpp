#include "dynvit/core/progress.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kPlainLine{10};
constexpr int kBarWidth = 24;

std::size_t terminal_columns() {
    winsize size{};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string clock_text(double seconds) {
    const auto whole = static_cast<std::int64_t>(std::max(0.0, seconds) + 0.5);
    char text[32];
    if (whole >= 3600) {
        std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", long(whole / 3600), long(whole / 60 % 60),
                      long(whole % 60));
    } else {
        std::snprintf(text, sizeof text, "%ld:%02ld", long(whole / 60), long(whole % 60));
    }
    return text;
}

std::string fixed(double value, int digits) {
    char text[64];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return text;
}

Progress::Progress(std::string label, std::int64_t total, std::int64_t first)
    : label_(std::move(label)),
      total_(total),
      first_(first),
      terminal_(isatty(STDERR_FILENO)),
      started_(Clock::now()),
      drawn_(terminal_ ? started_ - kRedraw : started_) {}

Progress::~Progress() {
    if (terminal_) std::fputs("\r\x1b[K", stderr);
}

bool Progress::due() const {
    return Clock::now() - drawn_ >= (terminal_ ? Clock::duration(kRedraw) : Clock::duration(kPlainLine));
}

void Progress::update(std::int64_t done, const std::string& text) {
    if (due()) draw(done, text);
}

void Progress::draw(std::int64_t done, const std::string& text) {
    drawn_ = Clock::now();
    const double elapsed = std::chrono::duration<double>(drawn_ - started_).count();
    const double share = total_ > 0 ? static_cast<double>(done) / static_cast<double>(total_) : 1.0;
    const double remaining = done > first_ ? elapsed / double(done - first_) * double(total_ - done) : 0.0;
    std::string line =
        str(label_, ' ', done, '/', total_, "  ", text, "  ", clock_text(elapsed), " + ", clock_text(remaining));
    if (!terminal_) {
        std::fprintf(stderr, "%s\n", line.c_str());
        return;
    }
    const int filled = std::clamp(static_cast<int>(share * kBarWidth), 0, kBarWidth);
    line = str('[', std::string(filled, '='), std::string(kBarWidth - filled, ' '), "] ", line);
    line.resize(std::min(line.size(), terminal_columns() - 1));
    std::fprintf(stderr, "\r%s\x1b[K", line.c_str());
    std::fflush(stderr);
}

}  // namespace dynvit
