// Ranks: a key-value store, collectives and the averaging of gradients, by PyTorch's c10d.
#define USE_C10D_GLOO 1
#include "distributed.h"

#include <c10/util/Flags.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>

#include "guarded.h"

C10_DECLARE_int(caffe2_log_level);

using namespace c10d;
using c10::intrusive_ptr;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using List = std::vector<Tensor>;

namespace {
struct Keys {
  intrusive_ptr<TCPStore> tcp;
  intrusive_ptr<Store> store;
};

struct Group {
  intrusive_ptr<ProcessGroup> ranks;
  bool failed = false;

};

// What was done with one bucket of gradients, in seconds since the backward pass began.
struct Bucket {
  int64_t bytes;
  double ready, reduced;
};

// Apart from the rest of an exchange: Gloo's threads hold it, and must not be the last to hold their own group.
struct Trace {
  std::mutex lock;
  Clock::time_point begun;
  std::vector<Bucket> buckets;

  void begin() {
    std::lock_guard<std::mutex> guard(lock);
    begun = Clock::now();
    buckets.clear();
  }
  double now() const { return std::chrono::duration<double>(Clock::now() - begun).count(); }
  size_t ready(size_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    buckets.push_back({static_cast<int64_t>(bytes), now(), 0});
    return buckets.size() - 1;
  }
  void reduced(size_t place) {
    std::lock_guard<std::mutex> guard(lock);
    if (place < buckets.size()) buckets[place].reduced = now();
  }
  // Who waits for a sum may be told before who writes it down.
  void end() {
    std::lock_guard<std::mutex> guard(lock);
    for (auto& bucket : buckets)
      if (bucket.reduced == 0) bucket.reduced = now();
  }
};

struct Exchange {
  intrusive_ptr<ProcessGroup> ranks;
  std::optional<at::ScalarType> compressed;
  std::vector<intrusive_ptr<Work>> works;
  bool refused = false;
  std::shared_ptr<Trace> trace = std::make_shared<Trace>();
};

// Sums a bucket over the ranks. Reducer's own way divides by their number first; the trainer divides by the weight of
// the whole batch already.
struct Sum : CppCommHookInterface<std::shared_ptr<Exchange>> {
  using CppCommHookInterface::CppCommHookInterface;

  intrusive_ptr<c10::ivalue::Future> runHook(GradBucket& bucket) override {
    auto exchange = state_;
    Tensor whole = bucket.getBuffer();
    List sent{exchange->compressed ? whole.to(*exchange->compressed) : whole};
    auto trace = exchange->trace;
    const size_t place = trace->ready(sent[0].nbytes());
    exchange->refused = true;
    auto work = exchange->ranks->allreduce(sent);
    exchange->refused = false;
    exchange->works.push_back(work);
    auto future = work->getFuture();
    future->addCallback([trace, place](c10::ivalue::Future&) { trace->reduced(place); });
    if (!exchange->compressed) return future;
    return future->then(
        [whole](c10::ivalue::Future& done) {
          whole.copy_(done.value().toTensorVector()[0]);
          return c10::IValue(whole);
        },
        c10::TensorType::get());
  }
};

struct Gradients {
  std::shared_ptr<Exchange> exchange;
  std::unique_ptr<Reducer> reducer;
  size_t buckets = 0;

  void begin() {
    exchange->works.clear();
    exchange->trace->begin();
  }

  bool failed() const {
    auto failed = [](const intrusive_ptr<Work>& work) { return work->getFuture()->hasError(); };
    return exchange->refused || std::any_of(exchange->works.begin(), exchange->works.end(), failed);
  }

  // Blocks until every bucket is there, also on a device.
  void finish() {
    for (auto& work : exchange->works) work->wait();
    exchange->works.clear();
    exchange->trace->end();
  }
};

List list(Tensor* const* tensors, size_t n) {
  List out;
  for (size_t i = 0; i < n; i++) out.push_back(*tensors[i]);
  return out;
}

// A loss whose gradient is zero everywhere, and whose backward pass comes to the last parameter first.
Tensor nothing(const List& params) {
  Tensor sum;
  for (auto& param : params) {
    auto term = param.flatten().narrow(0, 0, 1).sum() * 0;
    sum = sum.defined() ? sum + term : term;
  }
  return sum;
}

template <class F>
char* collective(Group* group, F&& body) {
  auto message = guarded([&] { body(*group->ranks); });
  if (message) group->failed = true;
  return message;
}
}  // namespace

extern "C" {
// A server listens on `port`, or on one that is free where `port` is 0; the port comes back.
char* te_store_new(const char* host, uint16_t port, int server, int64_t timeout_ms, const char* prefix, Keys** out,
                   uint16_t* listens) {
  return guarded([&] {
    // Failures come back as errors; c10d prints them too, with pages of C++ frames.
    if (!getenv("TORCH_CPP_LOG_LEVEL")) FLAGS_caffe2_log_level = 3;
    TCPStoreOptions options;
    options.port = port;
    options.isServer = server;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout_ms);
    auto tcp = c10::make_intrusive<TCPStore>(host, options);
    *listens = tcp->getPort();
    *out = new Keys{tcp, c10::make_intrusive<PrefixStore>(prefix, tcp)};
  });
}

void te_store_free(Keys* keys) { delete keys; }

char* te_store_set(Keys* keys, const char* key, const uint8_t* data, size_t length) {
  return guarded([&] { keys->store->set(key, std::vector<uint8_t>(data, data + length)); });
}

// Does not wait: `found` is 0 where there is no such key. The data is freed with te_free.
char* te_store_get(Keys* keys, const char* key, int* found, char** data, size_t* length) {
  return guarded([&] {
    *found = keys->store->check({key});
    if (!*found) return;
    auto value = keys->store->get(key);
    *length = value.size();
    *data = static_cast<char*>(malloc(value.size() + 1));
    TORCH_CHECK(*data, "no memory");
    memcpy(*data, value.data(), value.size());
  });
}

// Gloo for tensors of the CPU, and where `nccl` makes it, NCCL for those of CUDA devices.
char* te_group_new(Keys* keys, int number, int rank, int size, int64_t timeout_ms, const char* host,
                   const char* interface, MakeNccl nccl, Group** out) {
  return guarded([&] {
    // c10d's flight recorder writes down which groups there are without a lock, and would crash where ranks are threads.
    static const int unrecorded = setenv("TORCH_FR_BUFFER_SIZE", "0", 0);
    TORCH_CHECK(unrecorded == 0, "the environment cannot be changed");
    auto timeout = milliseconds(timeout_ms);
    intrusive_ptr<Store> store = c10::make_intrusive<PrefixStore>("group/" + std::to_string(number), keys->store);
    auto ranks = c10::make_intrusive<ProcessGroup>(store, rank, size);
    auto options = ProcessGroupGloo::Options::create(timeout);
    options->devices.push_back(interface ? ProcessGroupGloo::createDeviceForInterface(interface)
                                         : ProcessGroupGloo::createDeviceForHostname(host));
    auto gloo_keys = c10::make_intrusive<PrefixStore>("gloo", store);
    auto gloo = c10::make_intrusive<ProcessGroupGloo>(gloo_keys, rank, size, options);
    ranks->setDefaultBackend(ProcessGroup::BackendType::GLOO);
    ranks->setBackend(c10::DeviceType::CPU, ProcessGroup::BackendType::GLOO, gloo);
    if (nccl) {
      intrusive_ptr<Store> nccl_keys = c10::make_intrusive<PrefixStore>("nccl", store);
      intrusive_ptr<Backend> backend;
      if (char* message = nccl(&nccl_keys, rank, size, timeout, &backend)) {
        std::string text(message);
        free(message);
        TORCH_CHECK(false, text);
      }
      ranks->setBackend(c10::DeviceType::CUDA, ProcessGroup::BackendType::NCCL, backend);
    }
    *out = new Group{ranks};
  });
}

// After a failure the group is left as it is: taking it apart waits for the peers that do not answer.
void te_group_free(Group* group) {
  if (!group->failed) delete group;
}

char* te_group_all_reduce(Group* group, Tensor* tensor, int op) {
  return collective(group, [&](ProcessGroup& ranks) {
    at::NoGradGuard no_grad;
    List list{*tensor};
    AllreduceOptions options;
    options.reduceOp = op == 0 ? ReduceOp::SUM : ReduceOp::MAX;
    ranks.allreduce(list, options)->wait();
  });
}

char* te_group_broadcast(Group* group, Tensor* const* tensors, size_t n, int root) {
  return collective(group, [&](ProcessGroup& ranks) {
    at::NoGradGuard no_grad;
    BroadcastOptions options;
    options.rootRank = root;
    std::vector<intrusive_ptr<Work>> works;
    for (size_t i = 0; i < n; i++) {
      List list{tensors[i]->detach()};
      works.push_back(ranks.broadcast(list, options));
    }
    for (auto& work : works) work->wait();
  });
}

char* te_group_all_gather(Group* group, const Tensor* tensor, Tensor* const* out, size_t n) {
  return collective(group, [&](ProcessGroup& ranks) {
    at::NoGradGuard no_grad;
    std::vector<List> lists{list(out, n)};
    List input{*tensor};
    ranks.allgather(lists, input)->wait();
  });
}

char* te_group_barrier(Group* group) {
  return collective(group, [&](ProcessGroup& ranks) {
    List list{at::zeros({1})};
    ranks.allreduce(list)->wait();
  });
}

// `compressed` is a ScalarType or -1. Runs one backward pass that gives zeros: it makes every gradient a view of its
// bucket and lets Reducer settle its buckets in the order of the parameters from the last one, so that a training
// that goes on has the buckets of one that was never interrupted.
char* te_reducer_new(Group* group, Tensor* const* params, size_t n, int64_t first_bytes, int64_t bytes, int compressed,
                     Gradients** out) {
  return collective(group, [&](ProcessGroup&) {
    auto tensors = list(params, n);
    List reversed(tensors.rbegin(), tensors.rend());
    std::vector<int64_t> places(n);
    for (size_t i = 0; i < n; i++) places[i] = static_cast<int64_t>(n - 1 - i);
    std::vector<bool> sparse(n, false);
    const std::vector<size_t> limits{static_cast<size_t>(first_bytes), static_cast<size_t>(bytes)};
    auto [buckets, sizes] = compute_bucket_assignment_by_size(reversed, limits, sparse, places);
    std::unordered_map<size_t, std::string> names;
    auto made = std::make_unique<Gradients>();
    made->exchange = std::make_shared<Exchange>();
    made->exchange->ranks = group->ranks;
    if (compressed >= 0) made->exchange->compressed = static_cast<at::ScalarType>(compressed);
    made->reducer = std::make_unique<Reducer>(tensors, buckets, group->ranks, sparse, bytes, false, true, names,
                                              first_bytes, false, false, std::vector<int64_t>{});
    made->reducer->register_comm_hook(std::make_unique<Sum>(made->exchange));
    made->begin();
    made->reducer->prepare_for_backward({});
    nothing(tensors).backward();
    made->finish();
    made->reducer->rebuild_buckets();
    made->buckets = made->reducer->get_grad_buckets(true).size();
    *out = made.release();
  });
}

void te_reducer_free(Gradients* gradients, Group* group) {
  if (!group->failed) delete gradients;
}

// The backward pass that follows exchanges its gradients.
char* te_reducer_begin(Gradients* gradients, Group* group) {
  return collective(group, [&](ProcessGroup&) {
    gradients->begin();
    gradients->reducer->prepare_for_backward({});
  });
}

char* te_reducer_finish(Gradients* gradients, Group* group) {
  return collective(group, [&](ProcessGroup&) {
    TORCH_CHECK(gradients->exchange->works.size() == gradients->buckets, "a parameter that is trained got no gradient");
    gradients->finish();
  });
}

int te_reducer_failed(Gradients* gradients) { return gradients->failed(); }

void te_group_fail(Group* group) { group->failed = true; }

char* te_reducer_nothing(Tensor* const* params, size_t n, Tensor** out) {
  return guarded([&] { *out = new Tensor(nothing(list(params, n))); });
}

size_t te_reducer_buckets(Gradients* gradients) { return gradients->buckets; }

// The buckets of the last exchange, in the order in which they became ready; `n` of them at most.
size_t te_reducer_trace(Gradients* gradients, Bucket* out, size_t n) {
  auto& trace = *gradients->exchange->trace;
  std::lock_guard<std::mutex> guard(trace.lock);
  std::copy_n(trace.buckets.begin(), std::min(n, trace.buckets.size()), out);
  return std::min(n, trace.buckets.size());
}
}
