#include "dynvit/dist/process_group.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <algorithm>
#include <cstring>
#include <utility>

#include "dynvit/core/error.hpp"

namespace dynvit {
namespace {

constexpr const char* kArea = "dist";

// The error's own first line, without LibTorch's list of callers.
std::string first_line(const std::exception& error) {
    const auto* own = dynamic_cast<const c10::Error*>(&error);
    const std::string text = own ? own->what_without_backtrace() : error.what();
    return text.substr(0, text.find('\n'));
}

c10::intrusive_ptr<c10d::Store> open_store(const Launch& launch, std::chrono::milliseconds timeout) {
    c10d::TCPStoreOptions options;
    options.port = launch.port;
    options.isServer = launch.rank == 0 && !launch.store_is_served;
    options.timeout = timeout;
    options.waitWorkers = false;  // the group's own meeting is what everybody waits for
    auto store = c10::make_intrusive<c10d::TCPStore>(launch.host, options);
    return c10::make_intrusive<c10d::PrefixStore>("dynvit/" + launch.store_prefix, store);
}

// A text as a row of bytes.
at::Tensor bytes_of(const std::string& text) {
    at::Tensor bytes = at::empty({static_cast<std::int64_t>(text.size())}, at::kByte);
    if (!text.empty()) std::memcpy(bytes.data_ptr(), text.data(), text.size());
    return bytes;
}

}  // namespace

struct ProcessGroup::Connection {
    c10::intrusive_ptr<c10d::ProcessGroupGloo> group;

    static void wait(const c10::intrusive_ptr<c10d::Work>& work) { work->wait(); }

    void add_up(at::Tensor& tensor) const {
        std::vector<at::Tensor> tensors = {tensor};
        wait(group->allreduce(tensors));
    }

    void share(at::Tensor& tensor) const {
        std::vector<at::Tensor> tensors = {tensor};
        wait(group->broadcast(tensors));
    }

    // One of each process. @param own of the same size in all of them
    std::vector<at::Tensor> gather(const at::Tensor& own, int size) const {
        std::vector<std::vector<at::Tensor>> all(1);
        for (int i = 0; i < size; ++i) all[0].push_back(at::empty_like(own));
        std::vector<at::Tensor> inputs = {own};
        wait(group->allgather(all, inputs));
        return all[0];
    }
};

template <class Work>
auto ProcessGroup::call(const char* what, const Work& work) const {
    try {
        return work();
    } catch (const Error&) {
        throw;
    } catch (const std::exception& error) {
        throw Error(kArea, "rank ", rank(), " of ", size(), ": ", what,
                    ": another process has failed or does not answer: ", first_line(error));
    }
}

ProcessGroup::ProcessGroup(Launch launch, std::chrono::milliseconds timeout) : launch_(std::move(launch)) {
    if (launch_.alone()) return;
    connection_ = call(str("meeting at ", launch_.host, ':', launch_.port).c_str(), [&] {
        auto made = std::make_unique<Connection>();
        made->group =
            c10::make_intrusive<c10d::ProcessGroupGloo>(open_store(launch_, timeout), launch_.rank, launch_.world_size,
                                                        c10d::ProcessGroupGloo::Options::create_default(timeout));
        return made;
    });
}

ProcessGroup::~ProcessGroup() {
    if (!connection_) return;
    try {
        connection_->group->shutdown();
    } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): the others are gone already
    }
}

ProcessGroup::ProcessGroup(ProcessGroup&&) noexcept = default;

void ProcessGroup::add_up(at::Tensor& tensor) const {
    TORCH_CHECK(tensor.device().is_cpu() && tensor.is_contiguous(), "a contiguous tensor on the processor is needed");
    if (connection_) call("adding up", [&] { connection_->add_up(tensor); });
}

void ProcessGroup::add_up(const std::vector<at::Tensor>& tensors) const {
    if (alone() || tensors.empty()) return;
    std::vector<at::Tensor> rows;
    for (const at::Tensor& tensor : tensors) rows.push_back(tensor.detach().reshape({-1}));
    at::Tensor flat = at::cat(rows);
    add_up(flat);
    std::int64_t place = 0;
    for (const at::Tensor& tensor : tensors) {
        tensor.detach().copy_(flat.narrow(0, place, tensor.numel()).view_as(tensor));
        place += tensor.numel();
    }
}

bool ProcessGroup::any(bool here) const {
    if (alone()) return here;
    at::Tensor count = at::full({1}, here ? 1.0 : 0.0);
    add_up(count);
    return count.item<float>() > 0;
}

void ProcessGroup::share(at::Tensor& tensor) const {
    TORCH_CHECK(tensor.device().is_cpu() && tensor.is_contiguous(), "a contiguous tensor on the processor is needed");
    if (connection_) call("sharing", [&] { connection_->share(tensor); });
}

std::vector<std::string> ProcessGroup::gather(const std::string& text) const {
    if (!connection_) return {text};
    return call("gathering", [&] {
        const at::Tensor bytes = bytes_of(text);
        std::int64_t longest = 0;
        std::vector<std::int64_t> lengths;
        for (const at::Tensor& length : connection_->gather(at::scalar_tensor(bytes.numel(), at::kLong), size())) {
            lengths.push_back(length.item<std::int64_t>());
            longest = std::max(longest, lengths.back());
        }
        at::Tensor padded = at::zeros({longest}, at::kByte);
        padded.narrow(0, 0, bytes.numel()).copy_(bytes);
        std::vector<std::string> texts;
        for (const at::Tensor& each : connection_->gather(padded, size())) {
            texts.emplace_back(static_cast<const char*>(each.const_data_ptr()),
                               static_cast<std::size_t>(lengths[texts.size()]));
        }
        return texts;
    });
}

at::Tensor ProcessGroup::gather_rows(const at::Tensor& rows) const {
    if (alone()) return rows;
    const at::Tensor own = rows.contiguous();
    const std::string bytes(static_cast<const char*>(own.const_data_ptr()), own.nbytes());
    std::vector<at::Tensor> all;
    for (const std::string& each : gather(bytes)) {
        std::vector<std::int64_t> sizes = own.sizes().vec();
        std::int64_t row = static_cast<std::int64_t>(own.element_size());
        for (std::size_t i = 1; i < sizes.size(); ++i) row *= sizes[i];
        sizes.front() = std::ssize(each) / row;
        all.push_back(at::empty(sizes, own.options()));
        if (!each.empty()) std::memcpy(all.back().data_ptr(), each.data(), each.size());
    }
    return at::cat(all);
}

void ProcessGroup::set_timeout(std::chrono::milliseconds timeout) {
    if (connection_) connection_->group->setTimeout(timeout);
}

void ProcessGroup::meet() const {
    at::Tensor nothing = at::zeros({1});
    add_up(nothing);
}

void ProcessGroup::check_same(const std::string& what, const std::string& text) const {
    const std::vector<std::string> texts = gather(text);
    const auto other = std::ranges::find_if(texts, [&](const std::string& each) { return each != texts.front(); });
    if (other == texts.end()) return;
    throw Error(kArea, "rank ", other - texts.begin(), ": found other ", what, " than rank 0, expected the same");
}

}  // namespace dynvit
