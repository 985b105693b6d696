// The worst logit among the neighbors of a voxel that are of its class, and the way to it in memory.
//
// Per (sample, class) the window is taken along rows, then from row to row, then from slice to slice, inside and outside of the
// class apart: the largest of -z where a voxel is of the class, of z where it is not, and -infinity where it is on the other side
// or does not count.  A task takes a few rows through all slices, so that what it goes back to stays in cache.

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

#define HERE inline __attribute__((always_inline))
enum { CACHED = 32 << 10 };  // bytes of the slices that a task goes back to

template <class Z> struct Whole { typedef int32_t type; };
template <> struct Whole<double> { typedef int64_t type; };

template <class Z, class S> struct Tile {  // rows of one plane
  typedef typename Whole<Z>::type I;
  enum { L = BYTES / sizeof(Z) };  // lanes
  typedef Z V __attribute__((vector_size(BYTES)));
  typedef I M __attribute__((vector_size(BYTES)));
  typedef S Few __attribute__((vector_size(L * sizeof(S))));
  typedef int16_t Codes __attribute__((vector_size(L * 2)));
  struct Best {
    V value;
    M step;
    HERE void offer(V other, M from) {
      M larger = other > value;
      value = larger ? other : value;
      step = larger ? from : step;
    }
    HERE void offer(const Best& before, const Best& behind, I move) {
      offer(before.value, before.step - move);
      offer(behind.value, behind.step + move);
    }
  };
  struct Sides {  // inside, outside
    Best at[2];
    HERE Best of(M in) const { return {in ? at[0].value : at[1].value, in ? at[0].step : at[1].step}; }
  };

  const Worst& call;
  const int64_t H, W, vectors, rows, slots, length;
  Sides *flat, *ring;  // (rows + 2 along_height, vectors), (slots, rows, vectors)
  Z* lines;            // (rows + 2 along_height, 2, length), with room for the radius at both ends
  const Z* z;          // of the plane, as those below
  const int16_t* codes;
  I own;
  Z* worst;
  S* steps;
  int64_t top, bottom;

  static int64_t vectors_of(const Worst& call) { return (call.width + L - 1) / L; }
  static int64_t rows_of(const Worst& call) {
    int64_t found = CACHED / ((2 * call.along_depth + 1) * vectors_of(call) * (int64_t)sizeof(Sides));
    int64_t least = 2 * call.along_height + 1;
    return found < least ? least : found > call.height ? call.height : found;
  }

  template <class X, class Y> static HERE X load(const Y* from, int64_t n = L) {
    if (n < L) {
      X some = {};
      memcpy(&some, from, n * sizeof(Y));
      return some;
    }
    X found;
    memcpy(&found, from, sizeof(X));
    return found;
  }
  template <class X, class Y> static HERE void store(Y* to, X x, int64_t n) {
    if (n >= L) memcpy(to, &x, sizeof(X));
    else memcpy(to, &x, n * sizeof(Y));
  }
  static HERE M lanes() {
    M found;
    for (int i = 0; i < L; i++) found[i] = i;
    return found;
  }
  static HERE M wide(Codes codes) { return __builtin_convertvector(codes, M); }
  Z* line(int64_t h) { return lines + (h - top + call.along_height) * 2 * length + call.along_width; }
  Sides* flat_row(int64_t h) { return flat + (h - top + call.along_height) * vectors; }
  Sides* ring_row(int64_t d, int64_t h) { return ring + (d % slots * rows + h - top) * vectors; }

  // A row twice: -z inside and z outside, else -infinity.
  void prepare(int64_t d, int64_t h) {
    const int64_t at = (d * H + h) * W, n = vectors, apart = length;
    const V none = V{} - __builtin_inff();
    Z* to = line(h);
    for (int64_t v = 0; v < n; v++) {
      __builtin_prefetch(z + at + v * L + H * W);
      V x = load<V>(z + at + v * L, W - v * L);
      M code = wide(load<Codes>(codes + at + v * L, W - v * L)), beyond = lanes() >= (I)(W - v * L);
      store(to + v * L, code == own & ~beyond ? -x : none, L);
      store(to + apart + v * L, code == own | code < 0 | beyond ? none : x, L);
    }
  }
  void along_row(int64_t h) {
    const int64_t r = call.along_width, n = vectors;
    Sides* to = flat_row(h);
    for (int side = 0; side < 2; side++) {
      const Z* from = line(h) + side * length;
      for (int64_t v = 0; v < n; v++, from += L) {
        Best best = {load<V>(from), M{}};
        for (I k = 1; k <= r; k++) {
          best.offer(load<V>(from - k), M{} - k);
          best.offer(load<V>(from + k), M{} + k);
        }
        to[v].at[side] = best;
      }
    }
  }
  // Beyond the image the voxels themselves stand, which are not worse than themselves.
  void from_row_to_row(int64_t d, int64_t h) {
    const int64_t n = vectors;
    const int64_t r = call.along_height;
    Sides* to = ring_row(d, h);
    const Sides *here = flat_row(h), *first = h >= 1 ? here - n : here, *last = h + 1 < H ? here + n : here;
    for (int64_t v = 0; v < n; v++)
      for (int side = 0; side < 2; side++) {
        Best best = here[v].at[side];
        if (r) best.offer(first[v].at[side], last[v].at[side], W);
        for (int64_t k = 2; k <= r; k++)
          best.offer(flat_row(h >= k ? h - k : h)[v].at[side], flat_row(h + k < H ? h + k : h)[v].at[side], k * W);
        to[v].at[side] = best;
      }
  }
  void from_slice_to_slice(int64_t d, int64_t h) {
    const int64_t at = (d * H + h) * W, r = call.along_depth, D = call.depth, n = vectors;
    const Sides* here = ring_row(d, h);
    const Sides *first = d >= 1 ? ring_row(d - 1, h) : here, *last = d + 1 < D ? ring_row(d + 1, h) : here;
    for (int64_t v = 0; v < n; v++) {
      int64_t i = at + v * L, count = W - v * L;
      __builtin_prefetch(worst + i + H * W, 1), __builtin_prefetch(steps + i + H * W, 1);
      M code = wide(load<Codes>(codes + i, count)), in = code == own, counts = code >= 0;
      Best best = here[v].of(in);
      if (r) best.offer(first[v].of(in), last[v].of(in), H * W);
      for (int64_t k = 2; k <= r; k++)
        best.offer(ring_row(d < k ? d : d - k, h)[v].of(in), ring_row(d + k < D ? d + k : d, h)[v].of(in), k * H * W);
      V value = in ? -best.value : best.value;
      store(worst + i, counts ? value : load<V>(z + i, count), count);
      store(steps + i, __builtin_convertvector(best.step & counts, Few), count);
    }
  }
  void run() {
    const int64_t D = call.depth, r = call.along_height;
    const int64_t first = top < r ? 0 : top - r, last = bottom + r < H ? bottom + r : H;
    for (int64_t d = 0; d < D + call.along_depth; d++) {
      for (int64_t h = first; d < D && h < last; h++) prepare(d, h);
      for (int64_t h = first; d < D && h < last; h++) along_row(h);
      for (int64_t h = top; h < bottom; h++) {
        if (d < D) from_row_to_row(d, h);
        if (d >= call.along_depth) from_slice_to_slice(d - call.along_depth, h);
      }
    }
  }
};

template <class Z, class S> static void planes(const Worst& call) {
  typedef Tile<Z, S> T;
  typedef typename T::Sides Sides;
  const int64_t H = call.height, voxels = call.depth * H * call.width;
  const int64_t vectors = T::vectors_of(call), rows = T::rows_of(call), slots = 2 * call.along_depth + 1;
  const int64_t above = rows + 2 * call.along_height, length = vectors * T::L + 2 * call.along_width;
  const int64_t count = (H + rows - 1) / rows;
  in_parallel(call.planes * count, call.threads, [=](Turns& turns) {
    const int64_t sides = (above + slots * rows) * vectors, floats = above * 2 * length;
    Sides* memory = (Sides*)aligned_alloc(64, (sides * sizeof(Sides) + floats * sizeof(Z) + 63) / 64 * 64);
    Z* lines = (Z*)(memory + sides);
    for (int64_t i = 0; i < floats; i++) lines[i] = -(Z)__builtin_inff();
    for (int64_t task; (task = turns.next()) >= 0;) {
      const int64_t p = task / count, top = task % count * rows, bottom = top + rows < H ? top + rows : H;
      const int64_t codes = call.labels ? p / call.classes : p, own = call.labels ? p % call.classes : 1;
      T{call, H, call.width, vectors, rows, slots, length, memory, memory + above * vectors, lines,
        (const Z*)call.z + p * voxels, (const int16_t*)call.codes + codes * voxels, (typename T::I)own,
        (Z*)call.worst + p * voxels, (S*)call.steps + p * voxels, top, bottom}.run();
    }
    free(memory);
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
