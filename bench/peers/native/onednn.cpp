// Batch normalization by oneDNN, as a child process of the benchmark.
//
// It reads one command a line from standard input and answers one line on standard output, so
// that the benchmark can alternate short bursts of it with bursts of other libraries:
//
//   open OP FORMAT N C H W EPSILON DIR AFTER
//                                        OP: infer, train or backward; FORMAT: nc, nhwc or nchw.
//                                        Reads x, dy, gamma, beta, mean, variance (*.f32) in DIR,
//                                        runs once, writes y (or dx, dgamma, dbeta) there.
//                                        AFTER: none, or relu, which is fused (fuse_norm_relu).
//                                        Answers "ok NAME-OF-THE-KERNEL".
//   run CALLS                            Answers "ok MILLISECONDS", what they took together.
//   close
//
// oneDNN 2.6, https://oneapi-src.github.io/oneDNN/v2.6/dev_guide_batch_normalization.html
#include <oneapi/dnnl/dnnl.hpp>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

using namespace dnnl;
using Arguments = std::unordered_map<int, memory>;
using Clock = std::chrono::steady_clock;

namespace {

// Tensors stand at different addresses modulo 4096: a load whose address agrees in the low twelve
// bits with that of an earlier store waits for it, and the benchmark is to show oneDNN at its best.
struct Arena {
    std::vector<void *> blocks;
    size_t stagger = 0;
    void *take(size_t bytes) {
        stagger = (stagger + 1088) % 4096;
        void *block = std::aligned_alloc(4096, (bytes + stagger + 8191) / 4096 * 4096);
        if (!block) throw std::runtime_error("out of memory");
        blocks.push_back(block);
        return static_cast<char *>(block) + stagger;
    }
    ~Arena() {
        for (void *block : blocks) std::free(block);
    }
};

struct Case {
    Arena arena;
    primitive call;
    Arguments arguments;
    std::string kernel;
};

void read(const std::string &path, void *into, size_t bytes) {
    std::ifstream file(path, std::ios::binary);
    if (!file.read(static_cast<char *>(into), bytes)) throw std::runtime_error("cannot read " + path);
}

void write(const std::string &path, const void *from, size_t bytes) {
    std::ofstream file(path, std::ios::binary);
    if (!file.write(static_cast<const char *>(from), bytes))
        throw std::runtime_error("cannot write " + path);
}

std::unique_ptr<Case> open(engine &cpu, stream &queue, std::istringstream &words) {
    std::string op, format, dir, after;
    memory::dim n, c, h, w;
    float epsilon;
    if (!(words >> op >> format >> n >> c >> h >> w >> epsilon >> dir >> after))
        throw std::runtime_error("open OP FORMAT N C H W EPSILON DIR AFTER expected");
    if (after != "none" && after != "relu") throw std::runtime_error("cannot fuse " + after);

    const auto dims = format == "nc" ? memory::dims {n, c} : memory::dims {n, c, h, w};
    const auto tag = format == "nc"    ? memory::format_tag::nc
                     : format == "nhwc" ? memory::format_tag::nhwc
                                        : memory::format_tag::nchw;
    const memory::desc data(dims, memory::data_type::f32, tag);
    const memory::desc channel({c}, memory::data_type::f32, memory::format_tag::x);

    auto made = std::make_unique<Case>();
    auto tensor = [&](const memory::desc &desc, const char *source) {
        memory m(desc, cpu, made->arena.take(desc.get_size()));
        if (source)
            read(dir + "/" + source + ".f32", m.get_data_handle(), desc.get_size());
        return m;
    };
    auto affine = normalization_flags::use_scale | normalization_flags::use_shift;
    if (after == "relu") affine |= normalization_flags::fuse_norm_relu;
    const auto x = tensor(data, "x");
    const auto gamma = tensor(channel, "gamma");
    const auto beta = tensor(channel, "beta");
    auto &a = made->arguments;

    const bool infer = op == "infer";
    const auto flags = infer ? affine | normalization_flags::use_global_stats : affine;
    const auto kind = infer ? prop_kind::forward_inference : prop_kind::forward_training;
    const batch_normalization_forward::primitive_desc forward(
            {kind, data, epsilon, flags}, cpu);
    const auto y = tensor(data, nullptr);
    const auto mean = tensor(channel, infer ? "mean" : nullptr);
    const auto variance = tensor(channel, infer ? "variance" : nullptr);
    a = {{DNNL_ARG_SRC, x}, {DNNL_ARG_SCALE, gamma}, {DNNL_ARG_SHIFT, beta},
            {DNNL_ARG_MEAN, mean}, {DNNL_ARG_VARIANCE, variance}, {DNNL_ARG_DST, y}};
    // A ReLU in training leaves a bit for each value, which says whether it lets the gradient through.
    if (after == "relu" && !infer) a[DNNL_ARG_WORKSPACE] = tensor(forward.workspace_desc(), nullptr);
    made->call = batch_normalization_forward(forward);
    made->kernel = forward.impl_info_str();
    made->call.execute(queue, a);
    queue.wait();
    if (op != "backward") {
        write(dir + "/y.f32", y.get_data_handle(), data.get_size());
        return made;
    }

    const batch_normalization_backward::primitive_desc backward(
            {prop_kind::backward, data, data, epsilon, affine}, cpu, forward);
    const auto dy = tensor(data, "dy");
    const auto dx = tensor(data, nullptr);
    const auto dgamma = tensor(channel, nullptr);
    const auto dbeta = tensor(channel, nullptr);
    const auto bits = a.find(DNNL_ARG_WORKSPACE);
    Arguments of_backward = {{DNNL_ARG_SRC, x}, {DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_SCALE, gamma},
            {DNNL_ARG_SHIFT, beta}, {DNNL_ARG_MEAN, mean}, {DNNL_ARG_VARIANCE, variance},
            {DNNL_ARG_DIFF_SRC, dx}, {DNNL_ARG_DIFF_SCALE, dgamma}, {DNNL_ARG_DIFF_SHIFT, dbeta}};
    if (bits != a.end()) of_backward.insert(*bits);
    a = of_backward;
    made->call = batch_normalization_backward(backward);
    made->kernel = backward.impl_info_str();
    made->call.execute(queue, a);
    queue.wait();
    write(dir + "/dx.f32", dx.get_data_handle(), data.get_size());
    write(dir + "/dgamma.f32", dgamma.get_data_handle(), channel.get_size());
    write(dir + "/dbeta.f32", dbeta.get_data_handle(), channel.get_size());
    return made;
}

double milliseconds(Case &c, stream &queue, long calls) {
    const auto start = Clock::now();
    for (long i = 0; i < calls; i++) {
        c.call.execute(queue, c.arguments);
        queue.wait();
    }
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

} // namespace

int main() {
    engine cpu(engine::kind::cpu, 0);
    stream queue(cpu);
    std::unique_ptr<Case> current;
    const auto *v = dnnl_version();
    std::cout << "oneDNN " << v->major << "." << v->minor << "." << v->patch << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string command;
        words >> command;
        try {
            if (command == "open") {
                current.reset();
                current = open(cpu, queue, words);
                std::cout << "ok " << current->kernel << std::endl;
            } else if (command == "run") {
                long calls;
                if (!current || !(words >> calls))
                    throw std::runtime_error("run CALLS expected, after open");
                std::cout << "ok " << milliseconds(*current, queue, calls) << std::endl;
            } else if (command == "close") {
                current.reset();
                std::cout << "ok" << std::endl;
            } else {
                throw std::runtime_error("unknown command: " + line);
            }
        } catch (const std::exception &error) {
            std::cout << "error " << error.what() << std::endl;
        }
    }
}
