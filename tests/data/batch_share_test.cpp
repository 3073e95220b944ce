#include "dynvit/data/batch_share.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace dynvit {
namespace {

using Rows = std::vector<std::int64_t>;

TEST(BatchShare, OneProcessTakesAll) {
    EXPECT_EQ(BatchShare().rows(5), (Rows{0, 1, 2, 3, 4}));
    EXPECT_TRUE(BatchShare().whole());
}

TEST(BatchShare, TwoProcesses) {
    EXPECT_EQ((BatchShare{0, 2}.rows(8)), (Rows{0, 1, 6, 7}));
    EXPECT_EQ((BatchShare{1, 2}.rows(8)), (Rows{2, 3, 4, 5}));
    EXPECT_EQ((BatchShare{0, 2}.rows(7)), (Rows{0, 6}));
    EXPECT_EQ((BatchShare{1, 2}.rows(7)), (Rows{1, 2, 3, 4, 5})) << "the middle one is its own partner";
}

TEST(BatchShare, EveryRowIsInOneShareBesideItsPartner) {
    for (std::int64_t count = 1; count <= 9; ++count) {
        for (std::int64_t size = 0; size <= 40; ++size) {
            Rows all;
            std::size_t least = 40, most = 0;
            for (std::int64_t index = 0; index < count; ++index) {
                const Rows rows = BatchShare{index, count}.rows(size);
                EXPECT_TRUE(std::ranges::is_sorted(rows));
                for (std::size_t i = 0; i < rows.size(); ++i) {
                    EXPECT_EQ(rows[rows.size() - 1 - i], size - 1 - rows[i]) << "turned round, partners meet";
                }
                all.insert(all.end(), rows.begin(), rows.end());
                least = std::min(least, rows.size());
                most = std::max(most, rows.size());
            }
            std::ranges::sort(all);
            ASSERT_EQ(std::ssize(all), size);
            for (std::int64_t row = 0; row < size; ++row) EXPECT_EQ(all[static_cast<std::size_t>(row)], row);
            EXPECT_LE(most - least, 3u) << count << ' ' << size;
        }
    }
}

}  // namespace
}  // namespace dynvit
