// The worst logit among the neighbors of a voxel that are of its class, and the way to it in memory.
//
// Per (sample, class) the window is taken along one axis after the other, inside and outside of the class apart: the largest of -z
// where a voxel is of the class, of z where it is not, and -infinity where it is on the other side or does not count.  Slices that
// are done in their plane wait in a ring for those behind them.  What has no voxel of a side is skipped.

static const float NONE = -__builtin_inff();

struct Worst {
  int64_t z, codes;       // addresses of (planes, voxels) floats or doubles, and of int16: -1 does not count
  int64_t worst, steps;   // addresses of what is found, the latter of int16 or int32
  int64_t planes, classes;
  int64_t labels;         // codes are labels, (planes / classes, voxels); else 1 inside, 0 outside
  int64_t depth, height, width;
  int64_t along_depth, along_height, along_width;  // radius
  int64_t wide, far;      // doubles; int32
  int64_t threads;
};

template <class Z>
INLINE void offer(Z* __restrict best, int32_t* __restrict step, const Z* __restrict other, const int32_t* __restrict from,
                  int32_t move, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    bool larger = other[i] > best[i];
    best[i] = larger ? other[i] : best[i];
    step[i] = larger ? from[i] + move : step[i];
  }
}

// Rows of one side: values, ways, and which rows have any.
template <class Z> struct Rows {
  Z* value;
  int32_t* step;
  bool* any;
  int64_t width;
  static Rows of(int64_t rows, int64_t width) {
    return {(Z*)malloc(rows * width * sizeof(Z)), (int32_t*)malloc(rows * width * 4), (bool*)calloc(rows, 1), width};
  }
  void release() { free(value), free(step), free(any); }
  void set(int64_t to, const Rows& from, int64_t row) {  // a row of another, or nothing
    any[to] = from.any[row];
    if (any[to]) {
      memcpy(value + to * width, from.value + row * width, width * sizeof(Z));
      memcpy(step + to * width, from.step + row * width, width * 4);
    }
  }
  void take(int64_t to, const Rows& from, int64_t row, int32_t move) {
    if (!from.any[row]) return;
    if (!any[to]) {
      any[to] = true;
      for (int64_t i = 0; i < width; i++) value[to * width + i] = NONE, step[to * width + i] = 0;
    }
    offer(value + to * width, step + to * width, from.value + row * width, from.step + row * width, move, width);
  }
};

template <class Z, class S>
static void plane(const Worst& call, const Z* z, const int16_t* codes, int16_t own, Z* worst, S* steps) {
  const int64_t D = call.depth, H = call.height, W = call.width, r = call.along_width, slots = 2 * call.along_depth + 1;
  Z* line = (Z*)malloc((W + 2 * r) * sizeof(Z));
  int32_t* zeros = (int32_t*)calloc(W, 4);
  for (int64_t k = 0; k < r; k++) line[k] = line[W + r + k] = NONE;
  Rows<Z> flat[2], ring[2], found[2];
  for (int side = 0; side < 2; side++)
    flat[side] = Rows<Z>::of(H, W), ring[side] = Rows<Z>::of(slots * H, W), found[side] = Rows<Z>::of(1, W);
  for (int64_t d = 0; d < D + call.along_depth; d++) {
    for (int64_t h = 0; d < D && h < H; h++) {  // along the rows
      const Z* logits = z + (d * H + h) * W;
      const int16_t* code = codes + (d * H + h) * W;
      for (int side = 0; side < 2; side++) {
        bool any = false;
        for (int64_t i = 0; i < W; i++) {
          bool here = side ? code[i] != own && code[i] >= 0 : code[i] == own;
          line[r + i] = here ? (side ? logits[i] : -logits[i]) : (Z)NONE;
          any |= here;
        }
        flat[side].any[h] = any;
        if (!any) continue;
        Z* value = flat[side].value + h * W;
        int32_t* step = flat[side].step + h * W;
        memcpy(value, line + r, W * sizeof(Z));
        memset(step, 0, W * 4);
        for (int32_t k = 1; k <= r; k++) {
          offer(value, step, line + r - k, zeros, -k, W);
          offer(value, step, line + r + k, zeros, k, W);
        }
      }
    }
    for (int64_t h = 0; d < D && h < H; h++)  // from row to row
      for (int side = 0; side < 2; side++) {
        int64_t to = d % slots * H + h;
        ring[side].set(to, flat[side], h);
        for (int64_t k = 1; k <= call.along_height; k++) {
          if (h >= k) ring[side].take(to, flat[side], h - k, -k * W);
          if (h + k < H) ring[side].take(to, flat[side], h + k, k * W);
        }
      }
    int64_t e = d - call.along_depth;
    for (int64_t h = 0; e >= 0 && h < H; h++) {  // from slice to slice
      for (int side = 0; side < 2; side++) {
        found[side].set(0, ring[side], e % slots * H + h);
        for (int64_t k = 1; k <= call.along_depth; k++) {
          if (e >= k) found[side].take(0, ring[side], (e - k) % slots * H + h, -k * H * W);
          if (e + k < D) found[side].take(0, ring[side], (e + k) % slots * H + h, k * H * W);
        }
      }
      int64_t at = (e * H + h) * W;
      for (int64_t i = 0; i < W; i++) {
        bool inside = codes[at + i] == own, counts = codes[at + i] >= 0;
        Z value = inside ? -found[0].value[i] : found[1].value[i];
        int32_t step = inside ? found[0].step[i] : found[1].step[i];
        worst[at + i] = counts ? value : z[at + i];
        steps[at + i] = (S)(counts ? step : 0);
      }
    }
  }
  for (int side = 0; side < 2; side++) flat[side].release(), ring[side].release(), found[side].release();
  free(line), free(zeros);
}

template <class Z, class S> static void planes(const Worst& call) {
  int64_t voxels = call.depth * call.height * call.width;
  in_parallel(call.planes, call.threads, [=](Turns& turns) {
    for (int64_t p; (p = turns.next()) >= 0;) {
      int64_t codes = call.labels ? p / call.classes : p;
      int16_t own = call.labels ? p % call.classes : 1;
      plane(call, (const Z*)call.z + p * voxels, (const int16_t*)call.codes + codes * voxels, own,
            (Z*)call.worst + p * voxels, (S*)call.steps + p * voxels);
    }
  });
}

extern "C" void worst_of_neighbors(const Worst* call) {
  if (call->wide) call->far ? planes<double, int32_t>(*call) : planes<double, int16_t>(*call);
  else call->far ? planes<float, int32_t>(*call) : planes<float, int16_t>(*call);
}

template <class Z, class S> static void send(const Worst& call) {  // z, the gradient, to where its values came from
  int64_t voxels = call.depth * call.height * call.width;
  in_parallel(call.planes, call.threads, [=](Turns& turns) {
    for (int64_t p; (p = turns.next()) >= 0;) {
      const Z* grad = (const Z*)call.z + p * voxels;
      const S* steps = (const S*)call.steps + p * voxels;
      Z* slopes = (Z*)call.worst + p * voxels;
      memset(slopes, 0, voxels * sizeof(Z));
      for (int64_t i = 0; i < voxels; i++) slopes[i + steps[i]] += grad[i];
    }
  });
}

extern "C" void send_to_worst(const Worst* call) {
  if (call->wide) call->far ? send<double, int32_t>(*call) : send<double, int16_t>(*call);
  else call->far ? send<float, int32_t>(*call) : send<float, int16_t>(*call);
}
