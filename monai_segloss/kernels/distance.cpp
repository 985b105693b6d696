// Exact distances, and the two nearest of many instances.
//
// Squared distances pass along one axis after the other: out(x) = min over q of f(q) + cost(x - q), where f(q) counts as 0 if q
// has another label than x.  The first axis takes two sweeps.  Along the others 16 lines lie side by side, so that a vector unit
// compares neighbors at growing offsets.  What is still open after a few offsets may be far from everything: two of the 16 lines
// then take the lower envelope of parabolas (Felzenszwalb & Huttenlocher, Theory of Computing 8, 2012), run by run of one label,
// and show whether the others are done sooner by more offsets or by envelopes too.

typedef float V __attribute__((vector_size(BYTES)));
typedef int32_t M __attribute__((vector_size(BYTES)));

enum {
  LANES = 16,     // lines side by side
  W = BYTES / 4,  // lanes of a vector
  PER_LANES = LANES / W,
  OFFSETS = 12,  // neighbors on each side at first; noisy masks need fewer
  FAR = 64,      // offsets that cost more than an envelope
  BLOCK = 1024,  // lines of the first axis that stay in cache for its sweeps
  LINES = 64,    // lines of a task of the two nearest
};
static const float INF = __builtin_inff();

template <class X> static X* array(int64_t n) { return (X*)aligned_alloc(64, (n * sizeof(X) + 127) / 64 * 64); }

// Squared distance over each offset, at least two of them.
static float* squares(int64_t length, double step, bool surface) {
  float* found = array<float>(length + 2);
  for (int64_t i = 0; i < length || i < 2; i++) {
    double gap = (surface && i ? i - 0.5 : i) * step;
    found[i] = (float)(gap * gap);
  }
  return found;
}

struct Distances {
  int64_t labels, out;  // addresses of (N, D, H, W), the latter of floats
  int64_t steps, which;  // of (N, 3) doubles, and of the int64 numbers of the volumes to measure in
  int64_t volumes, depth, height, width;
  int64_t wide;      // labels are int32 and not uint8
  int64_t surface;   // distances to the faces of voxels
  int64_t sources;   // voxels of label 0 are what is measured to, and have the distance 0
  int64_t threads;
};

// Squared distance along the first axis of (D, M) to another label, lines ``first`` to ``last``.
template <class L>
static void sweep(const L* labels, float* out, int64_t depth, int64_t M, int64_t first, int64_t last, float step, float half) {
  for (int64_t i = first; i < last; i++) out[i] = INF;
  for (int64_t d = 1; d < depth; d++) {
    const L *own = labels + d * M, *other = own - M;
    float *to = out + d * M, *from = to - M;
    for (int64_t i = first; i < last; i++) to[i] = (own[i] == other[i] ? from[i] : 0) + 1;
  }
  for (int64_t d = depth - 2; d >= 0; d--) {
    const L *own = labels + d * M, *other = own + M;
    float *to = out + d * M, *from = to + M;
    for (int64_t i = first; i < last; i++) {
      float back = (own[i] == other[i] ? from[i] : 0) + 1;
      to[i] = back < to[i] ? back : to[i];
    }
  }
  for (int64_t d = 0; d < depth; d++)
    for (int64_t i = first; i < last; i++) {
      float gap = (out[d * M + i] - half) * step;
      out[d * M + i] = gap * gap;
    }
}

// 16 lines of n voxels with the lines innermost, and room for the parabolas of one.
struct Lanes {
  float *f, *out;
  int32_t* own;
  int64_t* at;             // place of a parabola,
  float *height, *since;   // its f, and twice the place from which it is the lowest
};

// Compares with the neighbors ``first`` to ``last`` voxels away; whether farther ones cannot be nearer.
static bool offsets(const Lanes& x, const float* cost, int64_t n, int64_t first, int64_t last) {
  const V* f = (const V*)x.f;
  const M* own = (const M*)x.own;
  V* out = (V*)x.out;
  for (int64_t k = first; k <= last; k++) {
    if (k % 4 == 1) {
      M most = {};
      for (int64_t i = 0; i < n * PER_LANES; i++) {
        M bits = (M)out[i];  // floats of at least 0 are in the order of their bits
        most = bits > most ? bits : most;
      }
      float farthest = 0;
      for (int lane = 0; lane < W; lane++) farthest = ((V)most)[lane] > farthest ? ((V)most)[lane] : farthest;
      if (cost[k] >= farthest) return true;
    }
    int64_t shift = k * PER_LANES;
    V add = V{} + cost[k];
    for (int64_t i = 0; i + shift < n * PER_LANES; i++) {
      V found = (own[i + shift] == own[i] ? f[i + shift] : V{}) + add;
      out[i] = found < out[i] ? found : out[i];
    }
    for (int64_t i = 0; i + shift < n * PER_LANES; i++) {
      V found = (own[i + shift] == own[i] ? f[i] : V{}) + add;
      out[i + shift] = found < out[i + shift] ? found : out[i + shift];
    }
  }
  return false;
}

// One line: the lower envelope of the parabolas of each run of one label and of its two neighbors, whose f is 0.  Returns how
// many voxels away the farthest vertex lies that a voxel takes, -1 if there is no parabola.
static int64_t envelope(const Lanes& x, float square, int64_t lane, int64_t n) {
  const float* f = x.f + lane;
  const int32_t* own = x.own + lane;
  int64_t reach = -1;
  for (int64_t a = 0, b; a < n; a = b) {
    for (b = a + 1; b < n && own[b * LANES] == own[a * LANES];) b++;
    int64_t top = -1;
    for (int64_t q = a ? a - 1 : 0; q < n && q <= b; q++) {
      float value = a <= q && q < b ? f[q * LANES] : 0;
      if (value == INF) continue;
      double crossing = -INF;
      for (; top >= 0; top--) {
        // no large squares are subtracted
        crossing = (value - x.height[top]) / ((double)square * (q - x.at[top])) + (q + x.at[top]);
        if (crossing > x.since[top]) break;
      }
      top++;
      x.at[top] = q, x.height[top] = value, x.since[top] = top > 0 ? (float)crossing : -INF;
    }
    int64_t lowest = 0;
    for (int64_t i = a; i < b && top >= 0; i++) {
      while (lowest < top && x.since[lowest + 1] < 2 * i) lowest++;
      int64_t offset = i - x.at[lowest], far = offset < 0 ? -offset : offset;
      reach = far > reach ? far : reach;
      x.out[i * LANES + lane] = x.height[lowest] + square * (float)offset * (float)offset;
    }
  }
  return reach;
}

// One axis of the lines.
static void lines(const Lanes& x, const float* cost, int64_t n, bool surface) {
  memcpy(x.out, x.f, n * LANES * sizeof(float));
  int64_t done = surface || n - 1 < OFFSETS ? n - 1 : (int64_t)OFFSETS;  // the distance to a face is no parabola
  if (offsets(x, cost, n, 1, done) || done == n - 1) return;
  int64_t reach = -1;
  for (int64_t lane = 0; lane < LANES; lane += LANES / 2) {
    int64_t found = envelope(x, cost[1], lane, n);
    reach = found > reach ? found : reach;
  }
  if (0 <= reach && reach <= FAR) {
    int64_t last = n - 1 < FAR + OFFSETS ? n - 1 : (int64_t)(FAR + OFFSETS);
    if (offsets(x, cost, n, done + 1, last) || last == n - 1) return;
    done = last;
  }
  for (int64_t lane = 0; lane < LANES; lane++) {
    float farthest = 0;
    for (int64_t i = 0; i < n; i++) farthest = x.out[i * LANES + lane] > farthest ? x.out[i * LANES + lane] : farthest;
    if (farthest > cost[done + 1]) envelope(x, cost[1], lane, n);
  }
}

// The other two axes of a plane (H, W): squared distances become distances, in place.
template <class L>
static void plane(const Distances& call, const Lanes& x, const L* labels, float* f, float* between, const float* high, const float* wide) {
  int64_t H = call.height, W_ = call.width;
  for (int64_t first = 0; first < W_; first += LANES) {
    int64_t count = W_ - first < LANES ? W_ - first : (int64_t)LANES;
    for (int64_t h = 0; h < H; h++)
      for (int64_t lane = 0; lane < LANES; lane++) {
        int64_t i = h * W_ + first + (lane < count ? lane : count - 1);
        x.f[h * LANES + lane] = f[i], x.own[h * LANES + lane] = labels[i];
      }
    lines(x, high, H, call.surface);
    for (int64_t h = 0; h < H; h++) memcpy(between + h * W_ + first, x.out + h * LANES, count * sizeof(float));
  }
  for (int64_t first = 0; first < H; first += LANES) {
    int64_t count = H - first < LANES ? H - first : (int64_t)LANES;
    for (int64_t lane = 0; lane < LANES; lane++) {
      int64_t row = (first + (lane < count ? lane : count - 1)) * W_;
      for (int64_t w = 0; w < W_; w++) x.f[w * LANES + lane] = between[row + w], x.own[w * LANES + lane] = labels[row + w];
    }
    lines(x, wide, W_, call.surface);
    for (int64_t lane = 0; lane < count; lane++)
      for (int64_t w = 0; w < W_; w++) {
        bool there = call.sources && x.own[w * LANES + lane] == 0;
        f[(first + lane) * W_ + w] = there ? 0 : __builtin_sqrtf(x.out[w * LANES + lane]);
      }
  }
}

template <class L> static void all_distances(const Distances& given) {
  Distances call = given;  // a helper may come when the caller has gone
  const L* labels = (const L*)call.labels;
  float* out = (float*)call.out;
  const double* steps = (const double*)call.steps;
  const int64_t* which = (const int64_t*)call.which;
  int64_t D = call.depth, M = call.height * call.width, parts = (M + BLOCK - 1) / BLOCK;
  in_parallel(call.volumes * parts, call.threads, [=](Turns& turns) {
    for (int64_t task; (task = turns.next()) >= 0;) {
      int64_t v = which[task / parts], first = task % parts * BLOCK, last = first + BLOCK < M ? first + BLOCK : M;
      sweep(labels + v * D * M, out + v * D * M, D, M, first, last, (float)steps[3 * v], call.surface ? 0.5f : 0.f);
    }
  });
  in_parallel(call.volumes * D, call.threads, [=](Turns& turns) {
    int64_t longest = call.height > call.width ? call.height : call.width;
    Lanes x = {array<float>(longest * LANES), array<float>(longest * LANES), array<int32_t>(longest * LANES),
               array<int64_t>(longest), array<float>(longest), array<float>(longest)};
    float *between = array<float>(M), *high = 0, *wide = 0;
    int64_t of = -1;
    for (int64_t task; (task = turns.next()) >= 0;) {
      int64_t v = which[task / D], start = (v * D + task % D) * M;
      if (v != of) {
        free(high), free(wide);
        high = squares(call.height, steps[3 * v + 1], call.surface), wide = squares(call.width, steps[3 * v + 2], call.surface);
        of = v;
      }
      plane(call, x, labels + start, out + start, between, high, wide);
    }
    void* memory[] = {x.f, x.out, x.own, x.at, x.height, x.since, between, high, wide};
    for (void* each : memory) free(each);
  });
}

extern "C" void distances(const Distances* call) {
  if (call->wide) all_distances<int32_t>(*call);
  else all_distances<uint8_t>(*call);
}

// -- the two nearest instances
//
// What is known passes along one axis after the other: of each voxel the squared distances to its two nearest instances on what
// the axes before have joined, and which instances these are.  A third one cannot be among the two nearest of another voxel of the
// line.  Along a line each voxel looks at neighbors at growing offsets until these alone are farther away than its second instance.

struct Two {  // the nearest instance and the next one; owner 0 where there is none
  float first, second;
  int32_t nearest, next;
};
struct Along {
  int64_t squared, owners;  // addresses of (2, before, n, behind), floats and int32
  double step;
  int64_t before, n, behind, threads;
};

// What an instance at this distance changes.
static inline void offer(Two& to, float value, int32_t owner) {
  if (owner == to.nearest) {
    to.first = value < to.first ? value : to.first;
  } else if (value < to.first) {
    to = {value, to.first, owner, to.nearest};
  } else {
    to.second = value, to.next = owner;
  }
}
static inline void offer_both(Two& to, const Two& from, float cost) {
  if (from.first + cost >= to.second) return;  // the other one is farther still
  offer(to, from.first + cost, from.nearest);
  if (from.second + cost < to.second) offer(to, from.second + cost, from.next);
}

static void along_line(const Two* line, Two* found, const float* cost, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    Two own = line[i];
    for (int64_t k = 1; k < n && cost[k] < own.second; k++) {
      if (i >= k) offer_both(own, line[i - k], cost[k]);
      if (i + k < n) offer_both(own, line[i + k], cost[k]);
    }
    found[i] = own;
  }
}

extern "C" void two_nearest_along(const Along* given) {  // in place
  Along call = *given;
  float* squared = (float*)call.squared;
  int32_t* owners = (int32_t*)call.owners;
  int64_t n = call.n, lines = call.before * call.behind, size = lines * n;
  in_parallel((lines + LINES - 1) / LINES, call.threads, [=](Turns& turns) {
    float* cost = squares(n, call.step, false);
    Two *line = array<Two>(n), *found = array<Two>(n);
    for (int64_t task; (task = turns.next()) >= 0;)
      for (int64_t l = task * LINES; l < lines && l < (task + 1) * LINES; l++) {
        int64_t start = l / call.behind * n * call.behind + l % call.behind;
        bool known = false;
        for (int64_t i = 0; i < n; i++) {
          int64_t at = start + i * call.behind;
          line[i] = {squared[at], squared[size + at], owners[at], owners[size + at]};
          known |= line[i].nearest != 0;
        }
        if (!known) continue;
        along_line(line, found, cost, n);
        for (int64_t i = 0; i < n; i++) {
          int64_t at = start + i * call.behind;
          squared[at] = found[i].first, squared[size + at] = found[i].second;
          owners[at] = found[i].nearest, owners[size + at] = found[i].next;
        }
      }
    free(cost), free(line), free(found);
  });
}
