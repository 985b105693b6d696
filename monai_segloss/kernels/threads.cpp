// What all kernels share.
//
// Tasks for several threads: whoever is free takes the next one; a helper that the machine never lets run is not waited for.

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

// Bytes of a vector register.
#if defined(__AVX512F__)
enum { BYTES = 64 };
#elif defined(__AVX__)
enum { BYTES = 32 };
#else
enum { BYTES = 16 };
#endif

struct Tasks {
  int64_t count, next, done, users;
  pthread_mutex_t lock;
  pthread_cond_t finished;
};
struct Turns {  // those of one thread
  Tasks* tasks;
  int64_t taken;
  int64_t next() {  // a task, or -1
    int64_t task = __atomic_fetch_add(&tasks->next, 1, __ATOMIC_RELAXED);
    if (task >= tasks->count) return -1;
    taken++;
    return task;
  }
};
template <class F> struct Job {
  Tasks tasks;
  F work;
};
template <class F> static void take_turns(Job<F>* job) {
  Tasks& tasks = job->tasks;
  Turns turns = {&tasks, 0};
  job->work(turns);
  pthread_mutex_lock(&tasks.lock);
  tasks.done += turns.taken;
  if (tasks.done == tasks.count) pthread_cond_signal(&tasks.finished);
  pthread_mutex_unlock(&tasks.lock);
}
template <class F> static void release(Job<F>* job) {
  if (__atomic_sub_fetch(&job->tasks.users, 1, __ATOMIC_ACQ_REL)) return;
  pthread_mutex_destroy(&job->tasks.lock);
  pthread_cond_destroy(&job->tasks.finished);
  delete job;
}
template <class F> static void* help(void* job) {
  take_turns((Job<F>*)job);
  release((Job<F>*)job);
  return 0;
}
// Calls ``work(turns)`` on this thread and on up to ``threads`` - 1 others; it takes turns until there are no more.
template <class F> static void in_parallel(int64_t count, int64_t threads, F work) {
  Job<F>* job = new Job<F>{{count, 0, 0, 1, {}, {}}, work};
  Tasks& tasks = job->tasks;
  pthread_mutex_init(&tasks.lock, 0);
  pthread_cond_init(&tasks.finished, 0);
  pthread_attr_t detached;
  pthread_attr_init(&detached);
  pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
  for (int64_t i = 1; i < threads && i < count; i++) {
    pthread_t thread;
    __atomic_add_fetch(&tasks.users, 1, __ATOMIC_RELAXED);
    if (pthread_create(&thread, &detached, help<F>, job)) {
      __atomic_sub_fetch(&tasks.users, 1, __ATOMIC_RELAXED);
      break;
    }
  }
  pthread_attr_destroy(&detached);
  take_turns(job);
  pthread_mutex_lock(&tasks.lock);
  while (tasks.done < tasks.count) pthread_cond_wait(&tasks.finished, &tasks.lock);
  pthread_mutex_unlock(&tasks.lock);
  release(job);
}
