// dynvit shard: from folders of pictures to tar archives that data.kind: tar_shards reads.
#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <set>
#include <unordered_set>

#include "arguments.hpp"
#include "command.hpp"
#include "dynvit/core/error.hpp"
#include "dynvit/core/files.hpp"
#include "dynvit/core/progress.hpp"
#include "dynvit/core/random.hpp"
#include "dynvit/data/data_settings.hpp"
#include "dynvit/data/image_folder.hpp"
#include "dynvit/io/tar.hpp"

namespace dynvit::tool {
namespace {

namespace fs = std::filesystem;

constexpr const char* kArea = "shard";

struct Arguments {
    std::string data, output, classes, labels, val_labels;
    std::vector<std::string> train_folders;
    bool unlabelled = false;
    std::int64_t images_per_shard = 1000;
    std::uint64_t shard_size = 0;  // bytes; 0: by number
    std::uint64_t shuffle_seed = 0;
};

/// train/ or val/ as it will be written.
struct Split {
    std::string name;
    std::unique_ptr<Dataset> pictures;
    std::vector<std::int64_t> labels;  // class index of each of the data set's own
};

DataSettings settings_of(const Arguments& arguments, const std::vector<std::string>& train_folders) {
    DataSettings settings;
    settings.root = arguments.data;
    settings.classes = arguments.classes;
    settings.labels = arguments.labels;
    settings.val_labels = arguments.val_labels;
    settings.labelled = !arguments.unlabelled;
    settings.train_folders = train_folders;
    return settings;
}

std::vector<Split> open_splits(const Arguments& arguments) {
    const fs::path root = arguments.data;
    std::vector<std::string> folders = arguments.train_folders;
    const bool has_val = fs::is_directory(root / "val");
    if (folders.empty() && (fs::is_directory(root / "train") || !has_val)) folders = {"train"};
    if (folders.size() > 1 && !arguments.unlabelled && arguments.labels.empty())
        throw Error(kArea, "--train-folders: found ", folders.size(),
                    " folders, expected one; several need --unlabelled or --labels");
    const DataSettings settings = settings_of(arguments, folders.empty() ? std::vector<std::string>{"train"} : folders);
    std::vector<Split> splits;
    if (!folders.empty()) splits.push_back({"train", make_dataset(settings, dynvit::Split::kTrain, 0, 0), {}});
    if (has_val) splits.push_back({"val", make_dataset(settings, dynvit::Split::kVal, 0, 0), {}});
    return splits;
}

/// The classes of all splits together, sorted, where no list was given; each split's labels are translated.
ClassList common_classes(std::vector<Split>& splits) {
    const std::vector<std::string>& first = splits.front().pictures->class_names();
    const auto same = [&](const Split& split) { return split.pictures->class_names() == first; };
    if (std::ranges::all_of(splits, same)) return {first, first};
    std::map<std::string, std::int64_t> indices;
    for (const Split& split : splits)
        for (const std::string& name : split.pictures->class_names()) indices[name] = 0;
    ClassList list;
    for (auto& [name, index] : indices) {
        index = std::ssize(list.folders);
        list.folders.push_back(name);
    }
    list.names = list.folders;
    for (Split& split : splits)
        for (const std::string& name : split.pictures->class_names()) split.labels.push_back(indices.at(name));
    return list;
}

/// The list as read_class_list takes it back: a folder's name may have no blank there, and be there only once.
std::string class_list_text(const ClassList& list) {
    std::string text;
    std::set<std::string> taken;
    for (std::size_t i = 0; i < list.folders.size(); ++i) {
        std::string folder = list.folders[i];
        std::replace_if(
            folder.begin(), folder.end(), [](char c) { return c == ' ' || c == '\t'; }, '_');
        while (!taken.insert(folder).second) folder += '~';
        text += folder + (list.names[i] == folder ? "" : ' ' + list.names[i]) + '\n';
    }
    return text;
}

void check_absent(const fs::path& path) {
    if (fs::exists(path)) throw Error(kArea, path.string(), ": exists already; remove it or give another --output");
}

/// Another split may be there already, whose labels the list must go on to explain.
void write_classes(const fs::path& path, const std::string& text) {
    if (fs::exists(path)) {
        const std::vector<std::uint8_t> before = read_file(path, kArea);
        if (!std::equal(before.begin(), before.end(), text.begin(), text.end()))
            throw Error(kArea, path.string(),
                        ": exists already and lists other classes; give another --output, or --classes ",
                        path.string());
    }
    write_file_atomically(path, text, kArea);
}

/// Names for a picture's members: its path below the data folder, without dots, which would end the key.
class Keys {
  public:
    explicit Keys(const fs::path& root) : root_(root.lexically_normal()) {}

    std::string next(const fs::path& picture) {
        const fs::path relative = picture.lexically_normal().lexically_relative(root_);
        std::string key = (relative.parent_path() / relative.stem()).generic_string();
        std::replace(key.begin(), key.end(), '.', '_');
        std::string unique = key;
        for (int copy = 2; !taken_.insert(unique).second; ++copy) unique = str(key, '~', copy);
        return unique;
    }

  private:
    fs::path root_;
    std::unordered_set<std::string> taken_;
};

/// A folder that is filled under another name and takes its own when it is complete; otherwise nothing of it stays.
class FolderInTheMaking {
  public:
    explicit FolderInTheMaking(const fs::path& path) : path_(path), temporary_(path.string() + ".writing") {
        fs::remove_all(temporary_);  // of a run that was killed
        make_directory(temporary_, kArea);
    }
    ~FolderInTheMaking() {
        std::error_code ignored;
        fs::remove_all(temporary_, ignored);
    }
    FolderInTheMaking(const FolderInTheMaking&) = delete;
    FolderInTheMaking& operator=(const FolderInTheMaking&) = delete;

    const fs::path& temporary() const { return temporary_; }
    void commit() { fs::rename(temporary_, path_); }

  private:
    fs::path path_;
    fs::path temporary_;
};

struct Written {
    std::int64_t shards = 0;
    std::uint64_t bytes = 0;
};

/// Archives 000000.tar, 000001.tar, ... of a split, in a folder.
class ShardWriter {
  public:
    ShardWriter(fs::path folder, const Arguments& limits) : folder_(std::move(folder)), limits_(limits) {}

    /// @param classes its indices @param listed whether it may have any number of them
    void add(const std::string& key, const Sample& sample, const std::vector<std::int64_t>& classes, bool listed) {
        if (writer_ && full(sample.encoded.size())) finish();
        if (!writer_) {
            const std::string number = str(written_.shards);
            const std::string zeros(number.size() < 6 ? 6 - number.size() : 0, '0');
            writer_ = std::make_unique<TarWriter>(folder_ / (zeros + number + ".tar"));
        }
        // Before the picture, so that one read finds both headers.
        if (listed) add_text(key + ".json", "{\"labels\": [" + join(classes, ", ") + "]}");
        if (!listed && !classes.empty()) add_text(key + ".cls", str(classes.front()));
        writer_->add(key + lower_case_ending(sample.name), sample.encoded);
        ++pictures_;
    }

    void finish() {
        if (!writer_) return;
        written_.bytes += writer_->size();
        writer_->commit();
        writer_.reset();
        ++written_.shards;
        pictures_ = 0;
    }

    Written written() const { return {written_.shards, written_.bytes + (writer_ ? writer_->size() : 0)}; }

  private:
    void add_text(const std::string& name, const std::string& text) {
        writer_->add(name, {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
    }

    bool full(std::uint64_t next) const {
        if (limits_.shard_size > 0) return writer_->size() + next > limits_.shard_size;
        return pictures_ >= limits_.images_per_shard;
    }

    fs::path folder_;
    const Arguments& limits_;
    std::unique_ptr<TarWriter> writer_;
    std::int64_t pictures_ = 0;  // in the current archive
    Written written_;
};

std::string megabytes(double bytes) {
    return fixed(1e-6 * bytes, 1) + " MB";
}

Written write_split(const Split& split, const Arguments& arguments, const fs::path& folder) {
    std::vector<std::size_t> order(split.pictures->size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    // Training shuffles within a window only: classes one after the other would stay together.
    if (split.name == "train") Random(arguments.shuffle_seed).shuffle(order);
    Keys keys(arguments.data);
    ShardWriter writer(folder, arguments);
    Progress bar(split.name, std::ssize(order));
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t i = 0; i < order.size(); ++i) {
        const Sample sample = split.pictures->get(order[i]);
        const bool listed = split.pictures->multi_label();
        std::vector<std::int64_t> classes = sample.labels;
        if (!listed && sample.label >= 0) classes = {sample.label};
        if (!split.labels.empty())
            for (std::int64_t& label : classes) label = split.labels[label];
        writer.add(keys.next(sample.name), sample, classes, listed);
        if (!bar.due()) continue;
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        bar.update(static_cast<std::int64_t>(i + 1),
                   megabytes(static_cast<double>(writer.written().bytes) / std::max(seconds, 1e-3)) + "/s");
    }
    writer.finish();
    const Written written = writer.written();
    bar.update(std::ssize(order), megabytes(static_cast<double>(written.bytes)));
    return written;
}

void run(const Arguments& arguments) try {
    std::optional<ClassList> classes;
    if (!arguments.classes.empty()) classes = read_class_list(arguments.classes);
    std::vector<Split> splits = open_splits(arguments);
    if (!classes) classes = common_classes(splits);
    const fs::path output = arguments.output;
    for (const Split& split : splits) check_absent(output / split.name);
    make_directory(output, kArea);
    const bool labelled = std::ranges::any_of(splits, [](const Split& split) { return split.pictures->labelled(); });
    if (labelled) write_classes(output / "classes.txt", class_list_text(*classes));
    for (const Split& split : splits) {
        FolderInTheMaking folder(output / split.name);
        const Written written = write_split(split, arguments, folder.temporary());
        folder.commit();
        print(str((output / split.name).string(), ": ", split.pictures->size(), " pictures",
                  split.pictures->labelled() ? str(" of ", classes->names.size(), " classes") : " without labels",
                  " in ", written.shards, " archives, ", megabytes(static_cast<double>(written.bytes)), '\n'));
    }
} catch (const fs::filesystem_error& error) {
    throw Error(kArea, error.path1().string(), ": ", error.code().message());
}

}  // namespace

void add_shard(CLI::App& program) {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command =
        program.add_subcommand("shard", "Pack folders of pictures into tar archives, for data.kind: tar_shards");
    command->add_option("--data", arguments->data, "the folder with train/ and val/, or one of them")->required();
    command->add_option("-o,--output", arguments->output, "folder for train/, val/ and classes.txt")->required();
    command->add_option("--classes", arguments->classes,
                        "file with a class folder's name a line, in index order; else all folders' names, sorted");
    auto* labels = command->add_option("--labels", arguments->labels,
                                       "file with the classes of each picture, in place of class folders: data.labels");
    command->add_option("--val-labels", arguments->val_labels, "the same for val/ alone: data.val_labels");
    add_list(*command, "--train-folders", arguments->train_folders,
             "folders below --data that make train/, in place of train; several: train,more");
    command
        ->add_flag("--unlabelled", arguments->unlabelled,
                   "take all pictures below the training folders, without labels")
        ->excludes(labels);
    auto* images = command->add_option("--images-per-shard", arguments->images_per_shard, "pictures an archive")
                       ->check(within(at_least(1)))
                       ->capture_default_str();
    command->add_option("--shard-size", arguments->shard_size, "about so many bytes an archive: 256MB, 1.5GiB")
        ->type_name("SIZE")
        ->transform(byte_size())
        ->excludes(images);
    command->add_option("--shuffle-seed", arguments->shuffle_seed, "of the order of the training pictures")
        ->capture_default_str();
    command->callback([arguments] { run(*arguments); });
}

}  // namespace dynvit::tool
