// Sums of statistics over voxels, and the gradient of the logits.  What stands for one set of statistics (the scalar type, the
// constants below and the functions each_values, true_values, each_slopes, true_slopes) comes from `emit.py`.
//
// Voxels go through in blocks that stay in cache, and in groups of W lanes that stay in registers.  A block is read once,
// widened, into z[group][class][lane]; the backward pass computes the probabilities again and keeps nothing.  With labels, the
// formulas at g = 0 run for each class and those at g = 1 for the true class alone, once per voxel.

#include <sys/mman.h>

//EMITTED CONSTANTS
// typedef float T; typedef int32_t I; enum { BEFORE, K, TARGET, LABELS, SOFTMAX, SHARP, LOG_Q, PULLS, EACH, TRUE, EACH_SLOPES, TRUE_SLOPES };

enum { SOFTMAX_BEFORE = 1, SIGMOID_BEFORE, NOTHING_BEFORE };
enum { W = BYTES / sizeof(T), MOST_VOXELS = 512, BLOCK = 32768, FEW_CLASSES = 16 };
enum { TASK_VOXELS = 2048, TASK = 1 << 17 };  // the least of a task and the numbers of one; tasks depend on the shape alone
typedef T V __attribute__((vector_size(BYTES)));
typedef I M __attribute__((vector_size(BYTES)));  // lanes of a mask are 0 or -1

static const T TINY = T(1e-30);  // below this a sum of probabilities may have lost its digits
static const T INF = __builtin_inff();

static inline V all(T x) { return V{} + x; }
static inline bool any(M m) {
  I found = 0;
  for (int i = 0; i < W; i++) found |= m[i];
  return found != 0;
}

// -- functions of the formulas: a NaN stays one

static inline V absolute(V x) { return x < 0 ? -x : x; }
static inline V sign(V x) { return x > 0 ? all(1) : x < 0 ? all(-1) : x; }
static inline V smaller(V x, V y) { return x >= y ? y : (y == y ? x : y); }
static inline V larger(V x, V y) { return x <= y ? y : x; }
static inline V above(V x, V y) { return x > y ? all(1) : V{}; }
static inline V step(V x, V y) { return x > y ? all(1) : x == y ? all(T(0.5)) : V{}; }

static inline V root(V x) {
  V r;
  for (int i = 0; i < W; i++) r[i] = sizeof(T) == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
  return r;
}

#if SINGLE
// log(1 + f) for -0.3 <= f <= 0.42 (Cephes' polynomial).
static inline V log_near(V f) {
  V y = f * 7.0376836292E-2f - 1.1514610310E-1f;
  y = y * f + 1.1676998740E-1f;
  y = y * f - 1.2420140846E-1f;
  y = y * f + 1.4249322787E-1f;
  y = y * f - 1.6668057665E-1f;
  y = y * f + 2.0000714765E-1f;
  y = y * f - 2.4999993993E-1f;
  y = y * f + 3.3333331174E-1f;
  V square = f * f;
  return f + (y * f * square - 0.5f * square);
}

// For x >= 0.
static inline V log_(V x) {
  M tiny = x < 1.17549435e-38f;
  M bits = (M)(tiny ? x * 33554432.f : x);
  M exponent = ((bits >> 23) & 255) - 126 - (tiny & 25);
  V m = (V)((bits & 0x007fffff) | 0x3f000000);
  M low = m < 0.707106781f;
  exponent += low;
  V e = __builtin_convertvector(exponent, V);
  V r = log_near((low ? m + m : m) - 1.f) + e * -2.12194440e-4f + e * 0.693359375f;
  r = x > 0 ? r : all(-INF);
  return x < INF ? r : x;
}

// log(1 + x), to the last digit of a small x, for -1/2 <= x <= 0 and for -1/2 <= x <= 1.
static inline V log1p_below(V x) {
  M low = x < -0.29f;
  return log_near(low ? 1.f + (x + x) : x) + (low ? all(-0.69314718f) : V{});
}
static inline V log1p_near(V x) {
  M low = x < -0.29f, high = x > 0.41f;
  V r = log_near(low ? 1.f + (x + x) : high ? (x - 1.f) * 0.5f : x);
  return r + (low ? all(-0.69314718f) : high ? all(0.69314718f) : V{});
}

static inline V exp_(V x) {
  V t = x * 1.44269504f + 12582912.f;  // the nearest whole number in the last bits
  V k = t - 12582912.f;
  V r = x - k * 0.693359375f + k * 2.12194440e-4f;
  V y = r * 1.9875691500E-4f + 1.3981999507E-3f;
  y = y * r + 8.3334519073E-3f;
  y = y * r + 4.1665795894E-2f;
  y = y * r + 1.6666665459E-1f;
  y = y * r + 5.0000001201E-1f;
  y = (y * r * r + r + 1.f) * (V)(((M)t - 0x4b400000 + 127) << 23);
  y = x < -87.f ? V{} : y;
  return x > 88.f ? all(INF) : y;
}
#else
static inline V log_(V x) {
  for (int i = 0; i < W; i++) x[i] = __builtin_log(x[i]);
  return x;
}
static inline V log1p_near(V x) {
  for (int i = 0; i < W; i++) x[i] = __builtin_log1p(x[i]);
  return x;
}
static inline V log1p_below(V x) { return log1p_near(x); }
static inline V exp_(V x) {
  for (int i = 0; i < W; i++) x[i] = __builtin_exp(x[i]);
  return x;
}
#endif

static inline V log1p_(V x) { return x <= 1 ? log1p_near(x) : log_(1 + x); }

// x^a for x >= 0; the branches fold, since a is a constant.
static inline V raised(V x, double a) {
  if (a == 0) return all(1);
  if (-32 <= a && a <= 32 && 2 * a == (int)(2 * a)) {
    if (a < 0) return 1 / raised(x, -a);
    int n = (int)a;
    V found = a != n ? root(x) : all(1);
    for (V square = x; n; n >>= 1, square = square * square)
      if (n & 1) found = found * square;
    return found;
  }
  return exp_(T(a) * log_(x));
}

//EMITTED FUNCTIONS

// -- reading and writing rows of any type

struct Half { uint16_t bits; };
struct Brain { uint16_t bits; };

static inline float number(Half x) {
  uint32_t bits = (uint32_t)(x.bits & 0x7fff) << 13, scale = 0x77800000;
  float found, big;
  memcpy(&found, &bits, 4);
  memcpy(&big, &scale, 4);
  found *= big;
  memcpy(&bits, &found, 4);
  if ((x.bits & 0x7c00) == 0x7c00) bits |= 0x7f800000;
  bits |= (uint32_t)(x.bits & 0x8000) << 16;
  memcpy(&found, &bits, 4);
  return found;
}
static inline float number(Brain x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float found;
  memcpy(&found, &bits, 4);
  return found;
}
template <class S> static inline S number(S x) { return x; }

static inline void set(T* to, T x) { *to = x; }
template <class S> static inline void set(S* to, T x) { *to = (S)x; }
static inline void set(Brain* to, T value) {
  float x = (float)value;
  uint32_t bits;
  memcpy(&bits, &x, 4);
  to->bits = x != x ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
static inline void set(Half* to, T value) {
  float x = (float)value;
  uint32_t bits, sign, found;
  memcpy(&bits, &x, 4);
  sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  if (bits >= 0x47800000) {  // 65536 and more, or no number
    found = bits > 0x7f800000 ? 0x7e00 : 0x7c00;
  } else if (bits < 0x38800000) {  // below the normal numbers: the addition rounds
    float y;
    memcpy(&y, &bits, 4);
    y += 0.5f;
    memcpy(&found, &y, 4);
    found -= 0x3f000000;
  } else {
    found = (bits - 0x38000000 + 0xfff + ((bits >> 13) & 1)) >> 13;
  }
  to->bits = (uint16_t)(found | sign);
}

enum Type { UINT8, INT8, INT16, INT32, INT64, FLOAT16, BFLOAT16, FLOAT32, FLOAT64 };
#define BY_TYPE(type, f, pointer, ...) \
  switch (type) { \
    case UINT8: return f((uint8_t*)(pointer), __VA_ARGS__); \
    case INT8: return f((int8_t*)(pointer), __VA_ARGS__); \
    case INT16: return f((int16_t*)(pointer), __VA_ARGS__); \
    case INT32: return f((int32_t*)(pointer), __VA_ARGS__); \
    case INT64: return f((int64_t*)(pointer), __VA_ARGS__); \
    case FLOAT16: return f((Half*)(pointer), __VA_ARGS__); \
    case BFLOAT16: return f((Brain*)(pointer), __VA_ARGS__); \
    case FLOAT32: return f((float*)(pointer), __VA_ARGS__); \
    case FLOAT64: return f((double*)(pointer), __VA_ARGS__); \
  }

// n numbers, the groups of W of which are ``apart`` in memory.
template <class S> static void read_numbers(const S* __restrict from, int64_t stride, int n, T* __restrict to, int64_t apart) {
  int i = 0;
  for (; stride == 1 && i + W <= n; i += W, to += apart) {
    __builtin_prefetch(from + i + n);  // the next block
    for (int j = 0; j < W; j++) to[j] = (T)number(from[i + j]);
  }
  for (; i < n; i += W, to += apart)
    for (int j = 0; j < W && i + j < n; j++) to[j] = (T)number(from[(i + j) * stride]);
}
template <class S> static inline I label(S x, I classes) {
  I y = (x >= 0) & (x < classes) ? (I)x : -1;
  return y == x ? y : -1;
}
template <class S> static void read_labels(const S* __restrict from, int64_t stride, int n, I* __restrict to, I classes) {
  int i = 0;
  for (; stride == 1 && i + W <= n; i += W)
    for (int j = 0; j < W; j++) to[i + j] = label(number(from[i + j]), classes);
  for (; i < n; i++) to[i] = label(number(from[i * stride]), classes);
}
template <class S> static void write_numbers(S* __restrict to, int64_t stride, int n, const T* __restrict from, int64_t apart) {
  int i = 0;
  for (; stride == 1 && i + W <= n; i += W, from += apart) {
    __builtin_prefetch(to + i + n, 1);
    for (int j = 0; j < W; j++) set(to + i + j, from[j]);
  }
  for (; i < n; i += W, from += apart)
    for (int j = 0; j < W && i + j < n; j++) set(to + (i + j) * stride, from[j]);
}

struct Rows { int64_t at, type, b, c, n; };  // address and strides in elements
struct Call {
  Rows z, y, w, out, t, t_out;
  double sharpness;
  int64_t batch, classes, voxels, sums, threads;
};

static const int64_t SIZE[] = {1, 1, 2, 4, 8, 2, 2, 4, 8};
static char* place(const Rows& rows, int64_t b, int64_t c, int64_t n) {
  return (char*)rows.at + (b * rows.b + c * rows.c + n * rows.n) * SIZE[rows.type];
}
static void read_row(const Rows& rows, int64_t b, int64_t c, int64_t n, int m, T* to, int64_t apart) {
  BY_TYPE(rows.type, read_numbers, place(rows, b, c, n), rows.n, m, to, apart)
}
static void read_classes(const Rows& rows, int64_t b, int64_t n, int m, I* to, I classes) {
  BY_TYPE(rows.type, read_labels, place(rows, b, 0, n), rows.n, m, to, classes)
}
static void write_row(const Rows& rows, int64_t b, int64_t c, int64_t n, int m, const T* from, int64_t apart) {
  BY_TYPE(rows.type, write_numbers, place(rows, b, c, n), rows.n, m, from, apart)
}

// -- a group: W voxels of all classes

struct Group {
  int classes;
  V *z, *p, *g, *slope, *pull;  // (classes), ``g`` only for channels
  V v;                          // weight, 0 where nothing counts
  V level;                      // T, a threshold
  T sharpness;
  M y;                          // label, -1 where there is none
  V top, log_total, q_top, log_q_top, log_others;
  M lost;  // where one class is so sure that the others underflow
};
struct Value { V p, q, lp, lq; };

static inline V logistic(V z) {
  V e = exp_(-absolute(z));
  return (z < 0 ? e : all(1)) / (1 + e);
}

// The probabilities of a softmax; with BEFORE, those of b = sigmoid(k (p - T)) follow, whose logits take the place of z.
INLINE void softmax(Group& x);
INLINE void activate(Group& x) {
  if (SOFTMAX || BEFORE == SOFTMAX_BEFORE) softmax(x);
  for (int c = 0; BEFORE && c < x.classes; c++) {
    if (BEFORE == SIGMOID_BEFORE) x.p[c] = logistic(x.z[c]);
    if (BEFORE == NOTHING_BEFORE) x.p[c] = x.z[c];
    x.z[c] = x.sharpness * (x.p[c] - x.level);
  }
}
INLINE void softmax(Group& x) {
  int C = x.classes;
  x.top = x.z[0];
  for (int c = 1; c < C; c++) x.top = x.z[c] > x.top ? x.z[c] : x.top;
  V total = V{};
  for (int c = 0; c < C; c++) total += x.p[c] = exp_(x.z[c] - x.top);
  x.log_total = log_(total);
  V inverse = 1 / total;
  x.q_top = V{};
  for (int c = 0; c < C; c++) {
    V p = x.p[c] * inverse;
    x.p[c] = p;
    x.q_top += p > T(0.5) ? V{} : p;
  }
  if (!LOG_Q || !SOFTMAX) return;
  x.log_q_top = log_(x.q_top);
  x.lost = x.q_top < TINY;
  if (!any(x.lost)) return;
  V second = all(-INF), rest = V{};
  for (int c = 0; c < C; c++) second = (x.p[c] <= T(0.5)) & (x.z[c] > second) ? x.z[c] : second;
  second = second == -INF ? V{} : second;
  for (int c = 0; c < C; c++) rest += x.p[c] <= T(0.5) ? exp_(x.z[c] - second) : V{};
  x.log_others = log_(rest) + second;
  x.log_q_top = x.lost ? x.log_others - x.top - x.log_total : x.log_q_top;
}

// p, 1 - p and their logarithms of the class with the logit z; with softmax p is known.
INLINE Value value(const Group& x, V z, V p) {
  Value found;
  if (SOFTMAX) {
    M top = p > T(0.5);  // only one class can be; its 1 - p is the sum of the others
    found.p = p;
    found.q = top ? x.q_top : 1 - p;
    found.lp = z - x.top - x.log_total;
    found.lq = top ? x.log_q_top : log1p_below(top ? V{} : -p);
  } else {
    V e = exp_(-absolute(z)), near = 1 / (1 + e), far = e * near, tail = log1p_near(e);
    found.p = z < 0 ? far : near;
    found.q = z < 0 ? near : far;
    found.lp = (z < 0 ? z : V{}) - tail;
    found.lq = (z < 0 ? V{} : -z) - tail;
  }
  if (SHARP) found.lp = found.q < T(0.5) ? log1p_below(found.q < T(0.5) ? -found.q : V{}) : found.lp;
  return found;
}

// That of the true class, and what ``table`` (classes, n) has for it.
INLINE Value true_value(const Group& x, const T* table, int n, V* picked) {
  V z = V{}, p = V{};
  if (x.classes <= FEW_CLASSES) {
    for (int c = 0; c < x.classes; c++) {
      M here = x.y == (I)c;
      z = here ? x.z[c] : z;
      if (SOFTMAX) p = here ? x.p[c] : p;
      for (int j = 0; j < n; j++) picked[j] = here ? all(table[c * n + j]) : picked[j];
    }
  } else {
    for (int i = 0; i < W; i++) {
      I c = x.y[i] < 0 ? 0 : x.y[i];
      z[i] = ((T*)(x.z + c))[i];
      if (SOFTMAX) p[i] = ((T*)(x.p + c))[i];
      for (int j = 0; j < n; j++) picked[j][i] = table[c * n + j];
    }
  }
  return value(x, z, p);
}

// Adds to ``each`` (classes, EACH), lane by lane, and for the true class to ``few`` (classes, TRUE) or ``many``.
INLINE void add_group(Group& x, V* each, V* few, double* many) {
  activate(x);
  if (LABELS && TRUE) {
    V found[TRUE + 1];
    Value t = true_value(x, 0, 0, 0);
    true_values(t.p, t.q, t.lp, t.lq, all(1), found);
    for (int j = 0; j < TRUE; j++) found[j] = x.y >= 0 ? x.v * found[j] : V{};
    if (x.classes <= FEW_CLASSES) {
      for (int c = 0; c < x.classes; c++)
        for (int j = 0; j < TRUE; j++) few[c * TRUE + j] += x.y == (I)c ? found[j] : V{};
    } else {
      for (int i = 0; i < W; i++)
        for (int j = 0; j < TRUE && x.y[i] >= 0; j++) many[x.y[i] * TRUE + j] += found[j][i];
    }
  }
  if (!EACH) return;
  for (int c = 0; c < x.classes; c++) {
    V found[EACH + 1];
    Value o = value(x, x.z[c], x.p[c]);
    each_values(o.p, o.q, o.lp, o.lq, LABELS ? V{} : x.g[c], found);
    V v = x.v;
    if (LABELS && TARGET) v = x.y == (I)c ? V{} : v;
    for (int j = 0; j < EACH; j++) each[c * EACH + j] += v * found[j];
  }
}

// From the gradient of the logits of b to that of the logits; the gradient of the logits of T.
INLINE V pull_before(Group& x) {
  V by_level = V{}, total = V{};
  for (int c = 0; c < x.classes; c++) {
    V slope = x.sharpness * x.z[c];
    by_level -= slope;
    x.slope[c] = BEFORE == NOTHING_BEFORE ? slope : slope * x.p[c];
    total += x.slope[c];
  }
  for (int c = 0; c < x.classes; c++) {
    V p = x.p[c], slope = x.slope[c];
    x.z[c] = BEFORE == SOFTMAX_BEFORE ? slope - p * total : BEFORE == SIGMOID_BEFORE ? slope * (1 - p) : slope;
  }
  return by_level * x.level * (1 - x.level);
}

// The gradient of the logits in place of the logits, from factors (classes, EACH_SLOPES) and (classes, TRUE_SLOPES).
INLINE void pull_back(Group& x, const T* each, const T* hits) {
  activate(x);
  V true_slope = V{}, true_pull = V{}, by_hit = V{}, picked[TRUE_SLOPES + 1] = {};
  if (LABELS && TRUE_SLOPES) {
    Value t = true_value(x, hits, TRUE_SLOPES, picked);
    true_slopes(t.p, t.q, t.lp, t.lq, all(1), picked, true_slope, true_pull);
    by_hit = true_slope * t.q - true_pull * t.p;
  }
  V total = V{}, pulled = V{}, by_top = V{};
  for (int c = 0; c < x.classes; c++) {
    V slope, pull;
    Value o = value(x, x.z[c], x.p[c]);
    each_slopes(o.p, o.q, o.lp, o.lq, LABELS ? V{} : x.g[c], each + c * EACH_SLOPES, slope, pull);
    M here = x.y == (I)c;
    if (!SOFTMAX) {
      V found = slope * o.q - pull * o.p;
      if (LABELS && TARGET) found = here ? by_hit : found;
      x.z[c] = x.v * found;
      continue;
    }
    if (LABELS && TARGET) {
      slope = here ? true_slope : slope;
      pull = here ? true_pull : pull;
    }
    x.slope[c] = slope;
    total += slope;
    if (PULLS) {
      M top = o.p > T(0.5);
      x.pull[c] = pull;
      pulled += top ? V{} : pull * o.p / o.q;
      by_top += top ? pull * o.p : V{};
    }
  }
  if (!SOFTMAX) return;
  V inverse = 1 / x.q_top;
  bool lost = PULLS && any(x.lost);
  for (int c = 0; c < x.classes; c++) {
    V p = x.p[c], slope = x.slope[c], found;
    M top = p > T(0.5);
    V q = top ? x.q_top : 1 - p;
    found = SHARP ? slope * q - p * (total - slope) : slope - p * total;
    if (PULLS) {
      V ratio = p * inverse;
      if (lost) ratio = x.lost ? exp_(x.z[c] - x.log_others) : ratio;
      V own = top ? V{} : x.pull[c] * p / q;
      found += p * (pulled - own - x.pull[c]) + (top ? V{} : by_top * ratio);
    }
    x.z[c] = x.v * found;
  }
}

// -- blocks and tasks

struct Memory {
  V *z, *g, *v, *t, *each, *few, *scratch;
  M* y;
  double* many;
};
static int block_voxels(const Call& call) {
  int64_t n = BLOCK / call.classes / W * W;
  return n > MOST_VOXELS ? MOST_VOXELS : n < W ? (int)W : (int)n;
}
static void* lay_out(const Call& call, Memory* m) {
  int64_t C = call.classes, groups = block_voxels(call) / W, hits = C <= FEW_CLASSES ? C * TRUE : 0;
  int64_t sizes[] = {groups * C, LABELS ? 0 : groups * C, groups, groups, groups, C * EACH, hits, 3 * C};
  int64_t total = 0;
  for (int i = 0; i < 8; i++) total += sizes[i];
  int64_t tail = (C * TRUE * 8 + BYTES - 1) / BYTES * BYTES;
  char* memory = (char*)aligned_alloc(64, (total * BYTES + tail + 63) / 64 * 64);
  V** parts[] = {&m->z, &m->g, &m->v, &m->t, (V**)&m->y, &m->each, &m->few, &m->scratch};
  char* next = memory;
  for (int i = 0; i < 8; next += sizes[i++] * BYTES) *parts[i] = (V*)next;
  m->many = (double*)next;
  return memory;
}

// Voxels n to n + m of sample b: logits 0 where nothing counts, also beyond the end.
static int read_block(const Call& call, Memory& k, int64_t b, int64_t n, int m) {
  int C = (int)call.classes, groups = (m + W - 1) / W;
  bool masked = call.w.at || m < groups * W;
  for (int c = 0; c < C; c++) {
    read_row(call.z, b, c, n, m, (T*)(k.z + c), (int64_t)C * W);
    if (!LABELS) read_row(call.y, b, c, n, m, (T*)(k.g + c), (int64_t)C * W);
  }
  T* v = (T*)k.v;
  I* y = (I*)k.y;
  if (call.w.at)
    read_row(call.w, b, 0, n, m, v, W);
  else
    for (int i = 0; i < groups; i++) k.v[i] = all(1);
  if (BEFORE && call.t.at) read_row(call.t, b, 0, n, m, (T*)k.t, W);
  if (LABELS) read_classes(call.y, b, n, m, y, (I)C);
  for (int i = m; i < groups * W; i++) v[i] = 0, y[i] = -1;
  for (int i = 0; masked && i < groups; i++) {
    M nothing = k.v[i] <= 0;
    k.t[i] = nothing ? V{} : k.t[i];
    for (int c = 0; c < C; c++) {
      k.z[i * C + c] = nothing ? V{} : k.z[i * C + c];
      if (!LABELS) k.g[i * C + c] = nothing ? V{} : k.g[i * C + c];
    }
  }
  return groups;
}
static Group group_of(const Call& call, Memory& k, int i) {
  int C = (int)call.classes;
  Group x;
  x.classes = C;
  x.z = k.z + i * C;
  x.g = k.g + i * C;
  x.p = k.scratch, x.slope = k.scratch + C, x.pull = k.scratch + 2 * C;
  x.v = k.v[i], x.y = k.y[i];
  x.level = BEFORE && call.t.at ? logistic(k.t[i]) : all(T(0.5));
  x.sharpness = (T)call.sharpness;
  return x;
}

static int64_t task_voxels(const Call& call) {
  int64_t n = TASK / call.classes / MOST_VOXELS * MOST_VOXELS;
  return n < TASK_VOXELS ? (int64_t)TASK_VOXELS : n;
}
static int64_t parts_of(const Call& call) { return (call.voxels + task_voxels(call) - 1) / task_voxels(call); }

// ``result`` (batch, parts, classes, EACH + TRUE).
static void sum_task(const Call& call, Memory& k, int64_t task, double* result) {
  int64_t C = call.classes, parts = parts_of(call), b = task / parts, start = task % parts * task_voxels(call);
  int64_t stop = start + task_voxels(call) < call.voxels ? start + task_voxels(call) : call.voxels;
  double* sums = result + task * C * (EACH + TRUE);
  bool few = C <= FEW_CLASSES;
  memset(k.many, 0, C * TRUE * sizeof(double));
  for (int64_t n = start; n < stop; n += block_voxels(call)) {
    int m = stop - n < block_voxels(call) ? (int)(stop - n) : block_voxels(call);
    int groups = read_block(call, k, b, n, m);
    memset((void*)k.each, 0, C * EACH * BYTES);
    if (few) memset((void*)k.few, 0, C * TRUE * BYTES);
    for (int i = 0; i < groups; i++) {
      Group x = group_of(call, k, i);
      add_group(x, k.each, k.few, k.many);
    }
    for (int64_t c = 0; c < C; c++) {
      double* to = sums + c * (EACH + TRUE);
      for (int j = 0; j < EACH; j++)
        for (int i = 0; i < W; i++) to[j] += ((T*)(k.each + c * EACH + j))[i];
      for (int j = 0; j < TRUE && few; j++)
        for (int i = 0; i < W; i++) to[EACH + j] += ((T*)(k.few + c * TRUE + j))[i];
    }
  }
  for (int64_t c = 0; c < C && !few; c++)
    for (int j = 0; j < TRUE; j++) sums[c * (EACH + TRUE) + EACH + j] = k.many[c * TRUE + j];
}

// ``factors`` (batch, classes, EACH_SLOPES) and, behind them, (batch, classes, TRUE_SLOPES).
static void slope_task(const Call& call, Memory& k, int64_t task, const T* factors) {
  int64_t C = call.classes, parts = parts_of(call), b = task / parts, start = task % parts * task_voxels(call);
  int64_t stop = start + task_voxels(call) < call.voxels ? start + task_voxels(call) : call.voxels;
  const T* each = factors + b * C * EACH_SLOPES;
  const T* hits = factors + call.batch * C * EACH_SLOPES + b * C * TRUE_SLOPES;
  for (int64_t n = start; n < stop; n += block_voxels(call)) {
    int m = stop - n < block_voxels(call) ? (int)(stop - n) : block_voxels(call);
    int groups = read_block(call, k, b, n, m);
    for (int i = 0; i < groups; i++) {
      Group x = group_of(call, k, i);
      pull_back(x, each, hits);
      if (BEFORE) k.t[i] = pull_before(x);
    }
    for (int64_t c = 0; c < C; c++) write_row(call.out, b, c, n, m, (T*)(k.z + c), C * W);
    if (BEFORE && call.t_out.at) write_row(call.t_out, b, 0, n, m, (T*)k.t, W);
  }
}

static void run(const Call& given, void* data, bool backward) {
  Call call = given;  // a helper may come when the caller has gone
  int64_t tasks = call.batch * parts_of(call), worth = call.batch * call.classes * call.voxels / TASK;
  in_parallel(tasks, call.threads < worth ? call.threads : worth, [=](Turns& turns) {
    Memory m;
    void* memory = 0;
    for (int64_t task; (task = turns.next()) >= 0;) {
      if (!memory) memory = lay_out(call, &m);
      if (backward) slope_task(call, m, task, (const T*)data);
      else sum_task(call, m, task, (double*)data);
    }
    free(memory);
  });
}

// New memory comes in pages of 4 KB, each of which costs an interrupt, unless large ones are asked for.
static void large_pages(const Rows& rows, int64_t elements) {
#ifdef MADV_HUGEPAGE
  uintptr_t size = 1 << 21, start = (rows.at + size - 1) / size * size, stop = (uintptr_t)place(rows, 0, 0, 0);
  stop = (stop + elements * SIZE[rows.type]) / size * size;
  if (stop > start) madvise((void*)start, stop - start, MADV_HUGEPAGE);
#endif
}

extern "C" void sums(const Call* call) {  // (batch, classes, K) of type T into call->sums
  int64_t C = call->classes, parts = parts_of(*call), J = EACH + TRUE, rows = call->batch * C;
  double* partial = (double*)calloc(call->batch * parts * C * J + 1, sizeof(double));
  run(*call, partial, false);
  for (int64_t row = 0; row < rows; row++) {
    double total[EACH + TRUE + 1] = {};
    for (int64_t part = 0; part < parts; part++)
      for (int64_t j = 0; j < J; j++) total[j] += partial[((row / C * parts + part) * C + row % C) * J + j];
    for (int64_t k = 0; k < K; k++) {
      double found = 0;
      for (int64_t j = 0; j < J; j++)
        if (VALUES[k][j] != 0) found += VALUES[k][j] * total[j];
      ((T*)call->sums)[row * K + k] = (T)found;
    }
  }
  free(partial);
}

extern "C" void gradient(const Call* call) {  // from that of the sums (batch, classes, K), of type T, in call->sums
  int64_t rows = call->batch * call->classes;
  T* factors = (T*)malloc((rows * (EACH_SLOPES + TRUE_SLOPES) + 1) * sizeof(T));
  for (int64_t row = 0; row < rows; row++)
    for (int64_t j = 0; j < EACH_SLOPES + TRUE_SLOPES; j++) {
      double found = 0;
      for (int64_t k = 0; k < K; k++)
        if (SLOPES[k][j] != 0) found += SLOPES[k][j] * ((const T*)call->sums)[row * K + k];
      bool each = j < EACH_SLOPES;
      factors[each ? row * EACH_SLOPES + j : rows * EACH_SLOPES + row * TRUE_SLOPES + j - EACH_SLOPES] = (T)found;
    }
  large_pages(call->out, call->batch * call->out.b);
  run(*call, factors, true);
  free(factors);
}
