// How a picture is made: a textured ground, distractors, the object, one thin stroke over it now and then, and light
// falling in from one side. Every area is a polygon with exact coverage at its edges. The textures of ground,
// distractors and object come from the same family, so that only the outline tells the class.
//
// Lengths are in units of the picture's side, so that a picture of another size shows a similar scene. Only +, -, *, /
// and square roots are used: no library function whose last bit differs between machines.
#include "dynvit/data/cluttered_shapes.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <initializer_list>
#include <utility>

#include "dynvit/core/error.hpp"
#include "dynvit/core/random.hpp"

namespace dynvit {
namespace {

constexpr std::uint64_t kPictureTag = 0x436c757474657265;  // keeps these random numbers apart from other uses of a seed
constexpr int kClasses = 10;

enum Shape { kDisc, kSquare, kTriangle, kStar, kCross, kHeart, kCrescent, kRing, kArrow, kHourglass };

float between(Random& random, float low, float high) {
    return low + (high - low) * static_cast<float>(random.uniform());
}

// ---------------------------------------------------------------------------------------------------------- geometry

struct Point {
    float x = 0, y = 0;
};

Point operator+(Point a, Point b) {
    return {a.x + b.x, a.y + b.y};
}
Point operator-(Point a, Point b) {
    return {a.x - b.x, a.y - b.y};
}
Point operator*(float s, Point a) {
    return {s * a.x, s * a.y};
}
float length(Point a) {
    return std::sqrt(a.x * a.x + a.y * a.y);
}

using Contour = std::vector<Point>;
using Outline = std::vector<Contour>;  // what runs the other way round is a hole

/// (cos, sin) of an angle in turns: Taylor series of an eighth of the angle, then doubled three times.
Point direction(float turns) {
    const double t = turns - std::floor(turns + 0.5);
    const double a = 6.283185307179586 / 8 * t, q = a * a;
    double c = 1 - q / 2 * (1 - q / 12 * (1 - q / 30 * (1 - q / 56)));
    double s = a * (1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72))));
    for (int i = 0; i < 3; ++i) {
        const double doubled = c * c - s * s;
        s = 2 * c * s;
        c = doubled;
    }
    return {static_cast<float>(c), static_cast<float>(s)};
}

/// Appends an arc of `points` points, both ends included, from angle `from` to angle `to` (turns).
void append_arc(Contour& contour, Point center, float radius, float from, float to, int points) {
    for (int i = 0; i < points; ++i) {
        const float share = static_cast<float>(i) / static_cast<float>(points - 1);
        contour.push_back(center + radius * direction(from + (to - from) * share));
    }
}

Contour circle(float radius, bool reversed = false) {
    constexpr int kCorners = 48;
    Contour contour;
    for (int i = 0; i < kCorners; ++i) {
        const float turns = static_cast<float>(i) / kCorners;
        contour.push_back(radius * direction(reversed ? -turns : turns));
    }
    return contour;
}

/// A class's outline around the origin, about two units wide. Each may vary a little, never towards another class.
Outline shape_outline(int shape, Random& random) {
    switch (shape) {
        case kDisc:
            return {circle(1)};
        case kSquare:
            return {{{-1, -1}, {1, -1}, {1, 1}, {-1, 1}}};
        case kTriangle:
            return {{{0, -1.1f}, {1.05f, 0.75f}, {-1.05f, 0.75f}}};
        case kStar: {
            const float inner = between(random, 0.40f, 0.48f);
            Contour star;
            for (int i = 0; i < 10; ++i)
                star.push_back((i % 2 ? inner : 1.0f) * direction(static_cast<float>(i) / 10 - 0.25f));
            return {star};
        }
        case kCross: {
            const float a = between(random, 0.29f, 0.37f);
            return {{{-a, -1},
                     {a, -1},
                     {a, -a},
                     {1, -a},
                     {1, a},
                     {a, a},
                     {a, 1},
                     {-a, 1},
                     {-a, a},
                     {-1, a},
                     {-1, -a},
                     {-a, -a}}};
        }
        case kHeart: {
            // The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, upside down as y grows downwards.
            Contour heart;
            for (int i = 0; i < 48; ++i) {
                const auto [c, s] = direction(static_cast<float>(i) / 48);
                const float c2 = 2 * c * c - 1, c3 = c * (2 * c2 - 1), c4 = 2 * c2 * c2 - 1;
                heart.push_back({s * s * s, -(13 * c - 5 * c2 - 2 * c3 - c4) / 16});
            }
            return {heart};
        }
        case kCrescent: {
            // The unit circle from tip to tip, back along a second circle through both tips. Its radius and centre
            // follow from the angles under which the two circles see a tip.
            const float outer = between(random, 0.11f, 0.14f), inner = between(random, 0.18f, 0.21f);
            const Point tip = direction(outer), seen = direction(inner);
            const float radius = tip.y / seen.y;
            Contour crescent;
            append_arc(crescent, {}, 1, outer, 1 - outer, 32);
            append_arc(crescent, {tip.x - radius * seen.x, 0}, radius, 1 - inner, inner, 28);
            return {crescent};
        }
        case kRing:
            return {circle(1), circle(between(random, 0.50f, 0.60f), true)};
        case kArrow: {
            const float shaft = between(random, 0.26f, 0.34f);
            return {{{-1.15f, -shaft},
                     {0.05f, -shaft},
                     {0.05f, -0.9f},
                     {1.15f, 0},
                     {0.05f, 0.9f},
                     {0.05f, shaft},
                     {-1.15f, shaft}}};
        }
        default: {  // kHourglass
            const float waist = between(random, 0.10f, 0.18f);
            return {{{-0.9f, -1}, {0.9f, -1}, {waist, 0}, {0.9f, 1}, {-0.9f, 1}, {-waist, 0}}};
        }
    }
}

/// Squares and triangles, crosses and hearts stay about upright; the others are known from every side.
bool turns_freely(int shape) {
    return shape != kSquare && shape != kTriangle && shape != kCross && shape != kHeart;
}

float signed_area(const Outline& outline) {
    float twice = 0;
    for (const Contour& contour : outline) {
        Point last = contour.back();
        for (const Point point : contour) {
            twice += last.x * point.y - point.x * last.y;
            last = point;
        }
    }
    return twice / 2;
}

struct Box {
    Point low{1e9f, 1e9f}, high{-1e9f, -1e9f};
};

Box bounds(const Outline& outline) {
    Box box;
    for (const Contour& contour : outline)
        for (const Point point : contour) {
            box.low = {std::min(box.low.x, point.x), std::min(box.low.y, point.y)};
            box.high = {std::max(box.high.x, point.x), std::max(box.high.y, point.y)};
        }
    return box;
}

/// Turns by the angle whose (cos, sin) is `turn`, after stretching by `stretch` across and 1 / stretch down.
void stretch_and_turn(Outline& outline, float stretch, Point turn) {
    for (Contour& contour : outline)
        for (Point& point : contour) {
            const Point p = {point.x * stretch, point.y / stretch};
            point = {turn.x * p.x - turn.y * p.y, turn.y * p.x + turn.x * p.y};
        }
}

void scale_and_shift(Outline& outline, float scale, Point shift) {
    for (Contour& contour : outline)
        for (Point& point : contour) point = scale * point + shift;
}

/// The object in its place. All classes share one distribution of covered area, so that size says nothing either.
Outline place_object(int shape, Random& random) {
    Outline outline = shape_outline(shape, random);
    const float turns = turns_freely(shape) ? between(random, 0, 1) : between(random, -0.07f, 0.07f);
    stretch_and_turn(outline, between(random, 0.92f, 1.08f), direction(turns));

    // Mostly 0.08 to 0.16 of the picture, now and then up to 0.21.
    const float covered = random.chance(0.85) ? between(random, 0.075f, 0.16f) : between(random, 0.16f, 0.21f);
    scale_and_shift(outline, std::sqrt(covered / std::abs(signed_area(outline))), {});

    constexpr float kMargin = 0.02f;
    const Box box = bounds(outline);
    const Point room = {1 - 2 * kMargin - (box.high.x - box.low.x), 1 - 2 * kMargin - (box.high.y - box.low.y)};
    const float x = between(random, 0, 1), y = between(random, 0, 1);
    scale_and_shift(outline, 1, Point{kMargin + x * room.x, kMargin + y * room.y} - box.low);
    return outline;
}

// -------------------------------------------------------------------------------------------------------- distractors

/// The outline of a line drawn along `path` with round ends: one capsule a segment.
Outline stroke(const Contour& path, float width) {
    Outline outline;
    for (std::size_t i = 1; i < path.size(); ++i) {
        const Point step = path[i] - path[i - 1];
        const float norm = length(step);
        if (norm < 1e-6f) continue;
        const Point along = (0.5f * width / norm) * step, across = {-along.y, along.x};
        Contour capsule;
        for (const auto& [center, sign] : {std::pair(path[i - 1], 1.0f), std::pair(path[i], -1.0f)}) {
            constexpr std::array<Point, 5> kHalfCircle = {
                {{1, 0}, {0.70711f, 0.70711f}, {0, 1}, {-0.70711f, 0.70711f}, {-1, 0}}};
            for (const auto& [a, b] : kHalfCircle) capsule.push_back(center + sign * (a * across - b * along));
        }
        outline.push_back(std::move(capsule));
    }
    return outline;
}

/// Something of no class around the origin. `area` is the largest it may cover, far less than the object does.
Outline distractor(float area, Random& random) {
    Outline outline;
    Contour path;
    switch (random.integer(0, 5)) {
        case 0: {  // a zigzag
            Point at = {};
            float turns = between(random, 0, 1);
            const std::int64_t corners = random.integer(2, 5);
            path.push_back(at);
            for (std::int64_t i = 0; i < corners; ++i) {
                at = at + between(random, 0.06f, 0.15f) * direction(turns);
                path.push_back(at);
                turns += (i % 2 ? 1.0f : -1.0f) * between(random, 0.14f, 0.38f);
            }
            outline = stroke(path, between(random, 0.012f, 0.026f));
            break;
        }
        case 1: {  // an arc, at most half a turn: no ring
            const float radius = between(random, 0.07f, 0.17f);
            append_arc(path, {}, radius, 0, between(random, 0.2f, 0.5f), 9);
            outline = stroke(path, between(random, 0.012f, 0.028f));
            break;
        }
        case 2: {  // a wave
            const Point bend = {between(random, 0.08f, 0.15f), between(random, 0.05f, 0.14f)};
            for (int i = 0; i <= 12; ++i) {
                const float t = static_cast<float>(i) / 6 - 1;
                path.push_back({1.4f * bend.x * t, bend.y * 2.6f * t * (1 - t * t)});
            }
            outline = stroke(path, between(random, 0.012f, 0.026f));
            break;
        }
        case 3: {  // a bean: a long ellipse, bent a little, far from a crescent's points
            const float bend = between(random, 0.08f, 0.26f), slim = between(random, 0.34f, 0.46f);
            Contour bean = circle(1);
            for (Point& point : bean) point.y = slim * point.y + bend * point.x * point.x;
            outline = {bean};
            break;
        }
        default: {  // a splinter: four corners, long and uneven
            const float a = between(random, 0.15f, 0.4f), b = between(random, 0.15f, 0.4f);
            outline = {{{-1, between(random, -0.2f, 0.2f)},
                        {between(random, -0.6f, 0.1f), -a},
                        {1, between(random, -0.5f, 0.1f)},
                        {between(random, 0.0f, 0.7f), b}}};
        }
    }
    if (path.empty())  // a filled area: give it its size
        scale_and_shift(outline, std::sqrt(between(random, 0.35f, 1) * area / std::abs(signed_area(outline))), {});
    stretch_and_turn(outline, 1, direction(between(random, 0, 1)));
    return outline;
}

// ----------------------------------------------------------------------------------------------------------- textures

struct Color {
    float r = 0, g = 0, b = 0;
};

Color mix(Color a, Color b, float t) {
    return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

/// How far two colours are apart to the eye, 0 to 1: green weighs most.
float distance(Color a, Color b) {
    const float r = a.r - b.r, g = a.g - b.g, blue = a.b - b.b;
    return std::sqrt(0.3f * r * r + 0.5f * g * g + 0.2f * blue * blue);
}

/// Hue in turns; saturation and value from 0 to 1.
Color from_hsv(float hue, float saturation, float value) {
    const auto channel = [&](float offset) {
        const float turns = hue + offset, h = 6 * (turns - std::floor(turns));
        return value * (1 - saturation * (1 - std::clamp(std::abs(h - 3) - 1, 0.0f, 1.0f)));
    };
    return {channel(0), channel(2.0f / 3), channel(1.0f / 3)};
}

Color random_color(Random& random) {
    const float hue = between(random, 0, 1);
    const float saturation = between(random, 0.06f, 0.74f);
    return from_hsv(hue, saturation, between(random, 0.22f, 0.96f));
}

/// A colour of a kindred hue, somewhat lighter or darker.
Color kindred(Color color, float strength, Random& random) {
    const float light = between(random, -strength, strength);
    const auto shifted = [&](float channel) {
        return std::clamp(channel + light + between(random, -0.4f * strength, 0.4f * strength), 0.02f, 0.98f);
    };
    const float r = shifted(color.r), g = shifted(color.g);
    return {r, g, shifted(color.b)};
}

/// Value noise that repeats at the picture's borders, so that it may be looked up shifted.
class Noise {
  public:
    Noise(int size, std::initializer_list<int> octaves, Random& random) : size_(size), values_(size * size, 0.0f) {
        std::vector<float> lattice, row, weight(size);
        std::vector<int> cell(size);
        float amplitude = 0.5f, sum = 0;
        for (const int cells : octaves) {
            lattice.resize(cells * cells);
            std::uint64_t bits = 0;
            for (std::size_t i = 0; i < lattice.size(); ++i, bits >>= 16) {
                if (i % 4 == 0) bits = random.bits();
                lattice[i] = amplitude * static_cast<float>(bits & 0xffff) / 65535.0f;
            }
            for (int x = 0; x < size; ++x) {
                const float place =
                    (static_cast<float>(x) + 0.5f) * static_cast<float>(cells) / static_cast<float>(size);
                cell[x] = std::min(static_cast<int>(place), cells - 1);
                const float t = place - static_cast<float>(cell[x]);
                weight[x] = t * t * (3 - 2 * t);
            }
            row.resize(cells + 1);
            for (int y = 0; y < size; ++y) {
                const float* above = lattice.data() + cell[y] * cells;
                const float* below = lattice.data() + (cell[y] + 1) % cells * cells;
                for (int i = 0; i < cells; ++i) row[i] = above[i] + (below[i] - above[i]) * weight[y];
                row[cells] = row[0];
                float* out = values_.data() + y * size;
                for (int x = 0; x < size; ++x) out[x] += row[cell[x]] + (row[cell[x] + 1] - row[cell[x]]) * weight[x];
            }
            sum += amplitude;
            amplitude *= 0.55f;
        }
        for (float& value : values_) value /= sum;  // 0 to 1
    }

    const float* row(int y) const { return values_.data() + y % size_ * size_; }

  private:
    int size_;
    std::vector<float> values_;
};

/// 0 to 1 and back, once a unit, with rounded turning points.
float wave(float phase) {
    const float t = std::abs(2 * (phase - std::floor(phase)) - 1);
    return t * t * (3 - 2 * t);
}

enum class Pattern { kClouds, kStripes, kChecks, kDots, kGradient, kMarble, kCount };

/// A pattern that runs through three colours.
struct Texture {
    Pattern pattern = Pattern::kClouds;
    Point along, across;  // phase a unit of length, in two directions at right angles
    Point phase;
    float warp = 0;                // how far noise bends the pattern
    float grain = 0;               // how much fine noise lightens and darkens it
    int shift_x = 0, shift_y = 0;  // pixels, into the noise
    std::array<Color, 3> colors;

    static Texture pick(int size, Random& random) {
        Texture texture;
        texture.pattern = static_cast<Pattern>(random.integer(0, static_cast<std::int64_t>(Pattern::kCount)));
        float frequency = between(random, 4, 11);
        if (texture.pattern == Pattern::kGradient) frequency = between(random, 0.5f, 1.2f);
        if (texture.pattern == Pattern::kMarble) frequency = between(random, 2, 5);
        texture.along = frequency * direction(between(random, 0, 1));
        texture.across = {-texture.along.y, texture.along.x};
        texture.phase = {between(random, 0, 1), between(random, 0, 1)};
        texture.warp = texture.pattern == Pattern::kMarble ? between(random, 2, 4) : between(random, 0, 0.8f);
        texture.grain = between(random, 0.10f, 0.35f);
        texture.shift_x = static_cast<int>(random.integer(0, size));
        texture.shift_y = static_cast<int>(random.integer(0, size));
        return texture;
    }
};

/// A texture along one row of pixels.
class TextureRow {
  public:
    TextureRow(const Texture& texture, const Noise& coarse, const Noise& fine, int size, int y)
        : texture_(&texture),
          coarse_(coarse.row(y + texture.shift_y)),
          fine_(fine.row(y + texture.shift_y)),
          size_(size),
          unit_(1.0f / static_cast<float>(size)),
          y_((static_cast<float>(y) + 0.5f) * unit_) {}

    Color at(int x) const {
        int shifted = x + texture_->shift_x;
        if (shifted >= size_) shifted -= size_;
        const float noise = coarse_[shifted], grain = fine_[shifted];
        const float px = (static_cast<float>(x) + 0.5f) * unit_;
        const float u = px * texture_->along.x + y_ * texture_->along.y + texture_->phase.x + texture_->warp * noise;
        const float v = px * texture_->across.x + y_ * texture_->across.y + texture_->phase.y + texture_->warp * noise;
        float t = 0;
        switch (texture_->pattern) {
            case Pattern::kClouds:
                t = 2.2f * noise - 0.6f;
                break;
            case Pattern::kChecks:
                t = 0.5f + 2 * (wave(u) - 0.5f) * (wave(v) - 0.5f);
                break;
            case Pattern::kDots: {
                const float du = u - std::floor(u) - 0.5f, dv = v - std::floor(v) - 0.5f;
                t = 5 * (0.28f - (du * du + dv * dv) * 2);
                break;
            }
            default:  // stripes, gradient, marble
                t = wave(u);
        }
        t = std::clamp(t, 0.0f, 1.0f) * 2;
        const Color color = t < 1 ? mix(texture_->colors[0], texture_->colors[1], t)
                                  : mix(texture_->colors[1], texture_->colors[2], t - 1);
        const float light = 1 + texture_->grain * (2 * grain - 1);
        return {color.r * light, color.g * light, color.b * light};
    }

  private:
    const Texture* texture_;
    const float* coarse_;
    const float* fine_;
    int size_;
    float unit_;
    float y_;
};

// ------------------------------------------------------------------------------------------------------------ drawing

/// Finds which share of each pixel lies inside an outline. Each edge adds, in the rows it passes, its height to the
/// pixels on its right, less the part of its own pixel on its left; a running sum along the row is then the covered
/// share.
class Rasterizer {
  public:
    explicit Rasterizer(int size) : size_(size), stride_(size + 2), change_(static_cast<std::size_t>(size) * stride_) {}

    /// Calls pixel(x, y, coverage) for each pixel that the outline covers, 0 < coverage <= 1, row by row. Parts that
    /// run the same way round are joined.
    template <class Pixel>
    void fill(const Outline& outline, Pixel&& pixel) {
        const float scale = static_cast<float>(size_);
        for (const Contour& contour : outline) {
            Point last = scale * contour.back();
            for (const Point point : contour) {
                const Point next = scale * point;
                add_edge(last, next);
                last = next;
            }
        }
        const Box box = bounds(outline);
        const auto first = [&](float value) {
            return std::clamp(static_cast<int>(std::floor(value * scale)), 0, size_);
        };
        const int left = std::max(first(box.low.x) - 1, 0), top = first(box.low.y);  // 1: for what rounding adds
        const int right = std::min(first(box.high.x) + 1, size_), bottom = std::min(first(box.high.y) + 1, size_);
        for (int y = top; y < bottom; ++y) {
            float* row = change_.data() + static_cast<std::size_t>(y) * stride_;
            float sum = 0;
            for (int x = left; x < right; ++x) {
                sum += row[x];
                const float coverage = std::min(std::abs(sum), 1.0f);
                if (coverage > 1e-3f) pixel(x, y, coverage);
            }
            std::fill(row + left, row + std::min(right + 2, stride_), 0.0f);
        }
    }

  private:
    void add_edge(Point from, Point to) {
        float sign = 1;
        if (from.y > to.y) {
            std::swap(from, to);
            sign = -1;
        }
        const float height = static_cast<float>(size_);
        if (to.y <= 0 || from.y >= height || from.y == to.y) return;
        const float slope = (to.x - from.x) / (to.y - from.y);
        const float start = std::max(from.y, 0.0f), stop = std::min(to.y, height);
        for (int y = static_cast<int>(start); y < size_ && static_cast<float>(y) < stop; ++y) {
            const float upper = std::max(start, static_cast<float>(y)),
                        lower = std::min(stop, static_cast<float>(y + 1));
            add_piece(y, from.x + (upper - from.y) * slope, from.x + (lower - from.y) * slope, sign * (lower - upper));
        }
    }

    /// A piece of an edge within one row, split where it passes from pixel to pixel.
    void add_piece(int y, float a, float b, float height) {
        const float limit = static_cast<float>(size_);
        const float low = std::clamp(std::min(a, b), 0.0f, limit), high = std::clamp(std::max(a, b), 0.0f, limit);
        float* row = change_.data() + static_cast<std::size_t>(y) * stride_;
        const int first = static_cast<int>(low);
        if (high <= static_cast<float>(first + 1)) {
            const float left_part = height * (0.5f * (low + high) - static_cast<float>(first));
            row[first] += height - left_part;
            row[first + 1] += left_part;
            return;
        }
        const float per_pixel = height / (high - low);
        float x = low;
        for (int i = first; x < high; ++i) {
            const float next = std::min(high, static_cast<float>(i + 1));
            const float piece = per_pixel * (next - x), left_part = piece * (0.5f * (x + next) - static_cast<float>(i));
            row[i] += piece - left_part;
            row[i + 1] += left_part;
            x = next;
        }
    }

    int size_;
    int stride_;
    std::vector<float> change_;  // of the covered share, from the pixel on the left
};

/// The picture while it is painted.
class Canvas {
  public:
    Canvas(int size, Random& random)
        : size_(size),
          coarse_(size, {3, 6, 12}, random),
          fine_(size, {16, 32}, random),
          rasterizer_(size),
          pixels_(static_cast<std::size_t>(size) * size) {}

    void cover(const Texture& texture) {
        for (int y = 0; y < size_; ++y) {
            const TextureRow row(texture, coarse_, fine_, size_, y);
            Color* out = pixels_.data() + static_cast<std::size_t>(y) * size_;
            for (int x = 0; x < size_; ++x) out[x] = row.at(x);
        }
    }

    /// Paints an area; `mask`, where given, gets 1 at each pixel that is at least half covered.
    void paint(const Outline& outline, const Texture& texture, std::uint8_t* mask = nullptr) {
        TextureRow row(texture, coarse_, fine_, size_, 0);
        int row_y = 0;
        rasterizer_.fill(outline, [&](int x, int y, float coverage) {
            if (y != row_y) {
                row = TextureRow(texture, coarse_, fine_, size_, y);
                row_y = y;
            }
            const std::size_t i = static_cast<std::size_t>(y) * size_ + x;
            pixels_[i] = mix(pixels_[i], row.at(x), coverage);
            if (mask && coverage >= 0.5f) mask[i] = 1;
        });
    }

    Color at(Point place) const {
        const auto pixel = [&](float value) {
            return static_cast<std::size_t>(
                std::clamp(static_cast<int>(value * static_cast<float>(size_)), 0, size_ - 1));
        };
        return pixels_[pixel(place.y) * size_ + pixel(place.x)];
    }

    /// 8-bit pixels, under a light that falls off along `light`.
    Image image(Point light) const {
        Image image(size_, size_);
        const float unit = 1.0f / static_cast<float>(size_);
        std::uint8_t* out = image.pixels.data();
        for (int y = 0; y < size_; ++y)
            for (int x = 0; x < size_; ++x) {
                const Color color = pixels_[static_cast<std::size_t>(y) * size_ + x];
                const float gain = 255 * (1 + light.x * (static_cast<float>(x) * unit - 0.5f) +
                                          light.y * (static_cast<float>(y) * unit - 0.5f));
                for (const float channel : {color.r, color.g, color.b})
                    *out++ = static_cast<std::uint8_t>(std::clamp(channel * gain + 0.5f, 0.0f, 255.0f));
            }
        return image;
    }

  private:
    int size_;
    Noise coarse_, fine_;
    Rasterizer rasterizer_;
    std::vector<Color> pixels_;
};

/// What lies just outside the object, at points spread along its outline.
std::vector<Color> surroundings(const Canvas& canvas, const Outline& outline) {
    constexpr float kApart = 0.03f, kSpacing = 0.04f;
    std::vector<Color> colors;
    const float side = signed_area(outline) > 0 ? 1.0f : -1.0f;
    for (const Contour& contour : outline) {
        Point last = contour.back();
        float since = kSpacing;  // length walked since the last point that was taken
        for (const Point point : contour) {
            const Point step = point - last;
            const float norm = length(step);
            for (float place = std::max(kSpacing - since, 0.0f); place < norm; place += kSpacing) {
                const Point outwards = (side / norm) * Point{step.y, -step.x};
                colors.push_back(canvas.at(last + (place / norm) * step + kApart * outwards));
                since = place - norm;
            }
            since = since < 0 ? -since : since + norm;
            last = point;
        }
    }
    return colors;
}

/// Three kindred colours that stand out from `around` nearly everywhere: the first random ones whose weakest quarter of
/// contrasts is strong enough on average, or the best of all that were tried.
std::array<Color, 3> visible_colors(const std::vector<Color>& around, Random& random) {
    constexpr float kEnough = 0.27f;
    std::array<Color, 3> best;
    float best_contrast = -1;
    std::vector<float> contrasts(around.size());
    for (int attempt = 0; attempt < 24 && best_contrast < kEnough; ++attempt) {
        const Color color = random_color(random);
        const Color second = kindred(color, 0.22f, random);
        const std::array<Color, 3> colors = {color, second, kindred(color, 0.22f, random)};
        for (std::size_t i = 0; i < around.size(); ++i) {
            contrasts[i] = 1;
            for (const Color& own : colors) contrasts[i] = std::min(contrasts[i], distance(own, around[i]));
        }
        const std::size_t quarter = std::max<std::size_t>(contrasts.size() / 4, 1);
        std::nth_element(contrasts.begin(), contrasts.begin() + static_cast<std::ptrdiff_t>(quarter) - 1,
                         contrasts.end());
        float contrast = 0;
        for (std::size_t i = 0; i < quarter; ++i) contrast += contrasts[i] / static_cast<float>(quarter);
        if (contrast > best_contrast) {
            best_contrast = contrast;
            best = colors;
        }
    }
    return best;
}

std::array<Color, 3> random_colors(float strength, Random& random) {
    const Color first = random_color(random);
    const Color second = kindred(first, strength, random);
    return {first, second, kindred(first, strength, random)};
}

}  // namespace

ClutteredShapes::ClutteredShapes(const ClutteredShapesSettings& settings) : settings_(settings) {
    if (settings.image_size < 32)
        throw Error("cluttered_shapes", "image_size is ", settings.image_size, ", at least 32 is needed");
    if (settings.count < 1) throw Error("cluttered_shapes", "count is ", settings.count, ", at least 1 is needed");
}

const std::vector<std::string>& ClutteredShapes::class_names() const {
    static const std::vector<std::string> names = {"disc",  "square",   "triangle", "star",  "cross",
                                                   "heart", "crescent", "ring",     "arrow", "hourglass"};
    return names;
}

std::string ClutteredShapes::name(std::size_t index) const {
    return str("cluttered_shapes/", settings_.seed, '/', index);
}

Sample ClutteredShapes::get(std::size_t index) const {
    if (index >= size()) throw Error("cluttered_shapes", "picture ", index, " of ", size());
    const int side = settings_.image_size;
    Random random(mix_seed({settings_.seed, index, kPictureTag}));
    Sample sample;
    sample.label = static_cast<std::int64_t>(index % kClasses);
    sample.name = name(index);
    sample.object_mask.assign(static_cast<std::size_t>(side) * side, 0);

    Canvas canvas(side, random);
    Texture ground = Texture::pick(side, random);
    ground.colors = random_colors(0.35f, random);
    if (random.chance(0.5)) ground.colors[2] = random_color(random);
    canvas.cover(ground);

    const Outline object = place_object(static_cast<int>(sample.label), random);
    const float object_area = std::abs(signed_area(object));
    const Box box = bounds(object);

    const std::int64_t distractors = random.integer(4, 11);
    for (std::int64_t i = 0; i < distractors; ++i) {
        Outline outline = distractor(0.22f * object_area, random);
        Point place;
        for (int attempt = 0; attempt < 4; ++attempt) {  // where it can be seen, if there is room
            place = {between(random, 0, 1), between(random, 0, 1)};
            if (place.x < box.low.x || place.x > box.high.x || place.y < box.low.y || place.y > box.high.y) break;
        }
        scale_and_shift(outline, 1, place);
        Texture texture = Texture::pick(side, random);
        texture.colors = random_colors(0.22f, random);
        canvas.paint(outline, texture);
    }

    Texture texture = Texture::pick(side, random);
    texture.colors = visible_colors(surroundings(canvas, object), random);
    canvas.paint(object, texture, sample.object_mask.data());

    if (random.chance(
            0.4)) {  // a thin stroke across the object, about a fortieth of its area; its pixels stay in the mask
        const float reach = std::sqrt(object_area);
        const Point along = (0.5f * reach) * direction(between(random, 0, 1));
        const Point middle = {between(random, box.low.x, box.high.x), between(random, box.low.y, box.high.y)};
        Texture line = Texture::pick(side, random);
        line.colors = random_colors(0.22f, random);
        canvas.paint(stroke({middle - along, middle + along}, 0.025f * reach), line);
    }
    const float light = between(random, 0, 0.4f);
    sample.image = canvas.image(light * direction(between(random, 0, 1)));
    return sample;
}

}  // namespace dynvit
