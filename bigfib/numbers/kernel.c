/* Arithmetic on long decimal numbers: sums in one pass, exact products by transforms.

   A shared library for ctypes (see kernel.py). It needs no Python headers, keeps no state, and
   neither allocates memory nor starts threads: those are the caller's.

   STEP. Two numbers in ASCII digits, most significant first, are added eight digits a word. With
   the bytes of a word in arithmetic order, t = a + b + 0x96..96 overflows exactly where the decimal
   sum does (0x30 + 0x30 + 0x96 + 10 = 256); a byte of t that overflowed is a digit, any other is a
   digit + 0xF6. The carry into a word is the overflow of the word to its right. Each word computes
   that overflow itself, so that no word waits for another. The carry is wrong only if the word to
   the right sums to nines and is carried into, once in 10^8 words; then the sum is computed again,
   digit by digit. For a - b, each digit of b is subtracted from nine, and the first carry is one.

   PRODUCT. Numbers are limbs to base 10^18, least significant first, multiplied as polynomials by
   number-theoretic transforms modulo three primes, in doubles. The Chinese remainder theorem and
   one carry give the limbs of the product. The modular product is that of J. van der Hoeven,
   G. Lecerf, G. Quintin, "Modular SIMD arithmetic in Mathemagix" (ACM TOMS 43, 2016), section 3.

   A transform has N = 4 m M points, m = 1 or 3 and M a power of two: the coefficients are 4 m rows
   of M columns. (1) `split_rows`: down each column a transform of length 4 m, which is one of 3 and
   one of 4 without factors in between, as these are coprime (Good 1958, Thomas 1963); then powers
   of a root of order N. This leaves 4 m cyclic convolutions of length M, four of them in the lanes
   of a vector. (2) `convolve` splits X^(4h) - r^4 into four factors X^h - i^k r, multiplies modulo
   each, and joins: recursively, hence in the cache from some size on. (3) `join_rows`: the inverse
   of (1).

   BOUNDS. Residues are whole numbers in doubles, |x| <= A p. The primes are below 2^51 / 3.1, so
   that whole numbers up to 2^53 = 12.4 p are exact. For |a| <= A p, |b| <= B p `times` computes
       h = fl(a b);  l = a b - h;  k = fl(h fl(1/p) + c) - c;  r = (h - k p) + l
   with c = 1.5 * 2^52, which rounds to a whole number while |h/p| <= 2^51: AB <= 3.1. With
   u = 2^-53, u p < 0.0807: |k - h/p| <= 1/2 + u |h/p|; |l| <= u |h|, exact by fma; h - k p is a
   multiple of ulp(h) below 2^53, hence exact. So |r| <= (1/2 + 0.1614 AB) p. For constants, which
   are reduced to B = 1/2, this is T(A) = 1/2 + 0.0807 A. By stages, in multiples of p:
       split_rows  limbs 0.51; length 3: 1.7, reduced to 0.51; length 4: 2.04; with the powers
                   (B = 0.55) 0.69
       split       X becomes 1/2 + T(X) + T(X + T(X)) < 1.86, factors X + T(X) < 2.6
       combine     reduced to 0.51, AB < 0.8; results below 1.1
       join        Y becomes at most 2 T(2 Y) < 1.48, factors and sums 4 Y < 5.93: AB < 2.97
       join_rows   with the powers 0.64; length 3: 2.0, reduced to 0.51; length 4: 2.04
   A build with -DTRACK records the largest of each; a test compares them with 5.93 and 2.97.
   The coefficients of a^2 + (a + b)^2 are below 5 n 10^36 for n limbs, the product of the primes is
   3.83 * 10^44: enough for n = 7.6 * 10^7, F(k) of 1.3 * 10^9 digits, terms beyond F(10^10). */

#include <fenv.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "needs a little-endian processor");
#define INLINE static inline __attribute__((always_inline))
typedef uint8_t u8;
typedef uint64_t u64;
typedef unsigned __int128 u128;
typedef u8 bytes __attribute__((vector_size(32), aligned(1), may_alias));
typedef int8_t signs __attribute__((vector_size(32)));
typedef u64 words __attribute__((vector_size(32)));
typedef double vector __attribute__((vector_size(32)));
typedef words loose_words __attribute__((aligned(8), may_alias));
typedef vector loose __attribute__((aligned(8), may_alias)); /* anywhere in memory */
#ifdef __clang__
#define SHUFFLE(kind, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(kind, a, b, ...) __builtin_shuffle(a, b, (kind){__VA_ARGS__})
#endif

/* Return the name of what this is compiled for, or NULL if this processor lacks it. */
const char *bigfib_variant(void) {
#ifdef __x86_64__
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "AVX2" : NULL;
#else
    return "portable vectors";
#endif
}

/* ---- Step ---- */
INLINE bytes swapped(bytes x) {
    return SHUFFLE(bytes, x, x, 7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8, 23, 22, 21,
                   20, 19, 18, 17, 16, 31, 30, 29, 28, 27, 26, 25, 24);
}

/* Return t of four words. The top bit of a word is clear if it overflowed. */
INLINE words raw_sums(const u8 *a, const u8 *b, int subtract) {
    bytes x = *(const bytes *)a, y = *(const bytes *)b;
    return (words)swapped(subtract ? x - y + 0x69 : x + y) + 0x9696969696969696;
}

/* Add digit by digit, zeros where a or b is NULL; return the carry. */
static int add_slowly(u8 *out, size_t n, const u8 *a, const u8 *b, int subtract, int carry) {
    while (n-- > 0) {
        int x = a ? a[n] - '0' : 0, y = b ? b[n] - '0' : 0;
        int sum = x + (subtract ? 9 - y : y) + carry;
        carry = sum > 9;
        out[n] = (u8)('0' + sum - 10 * carry);
    }
    return carry;
}

INLINE int step(u8 *out, size_t n, const u8 *a, size_t na, const u8 *b, size_t nb, int subtract) {
    if (na > n) a += na - n, na = n;
    if (nb > n) b += nb - n, nb = n;
    const u8 *x = a + na - nb;
    u8 *to = out + n - nb;
    size_t i = 0;
    words lost = {0};
    for (; i + 64 <= nb; i += 32) {
        words right = raw_sums(x + i + 8, b + i + 8, subtract) >> 63;
        words sum = raw_sums(x + i, b + i, subtract) + 1 - right;
        *(bytes *)(to + i) = swapped((bytes)sum + '0' + ((bytes)((signs)sum < 0) & 10));
        lost |= (words)(sum == 0);
    }
    int carry = add_slowly(to + i, nb - i, x + i, b + i, subtract, subtract);
    /* The word before these digits has assumed a carry; is it this one? */
    if (i && carry == (int)(raw_sums(x + i, b + i, subtract)[0] >> 63)) lost[0] = 1;
    if (lost[0] | lost[1] | lost[2] | lost[3]) carry = add_slowly(to, i, x, b, subtract, carry);
    else if (i) carry = !(raw_sums(x, b, subtract)[0] >> 63);
    carry = add_slowly(to - (na - nb), na - nb, a, NULL, subtract, carry);
    return add_slowly(out, n - na, NULL, NULL, subtract, carry);
}

/* Write the last n digits of a + b or a - b, then `closing`; return the carry (of a - b: whether
   nothing is borrowed). b has at most as many digits as a; `out` overlaps neither. */
int bigfib_step(int subtract, u8 *out, size_t n, const u8 *a, size_t na, const u8 *b, size_t nb,
                const u8 *closing, size_t n_closing) {
    memcpy(out + n, closing, n_closing);
    return subtract ? step(out, n, a, na, b, nb, 1) : step(out, n, a, na, b, nb, 0);
}

/* ---- Arithmetic modulo a prime: in whole numbers for constants, in doubles for the rest ---- */

/* Primes below 2^51 / 3.1 that are 1 modulo 3 * 2^28, with a primitive root of each. */
static const u64 PRIMES[3] = {726309839831041, 726261521448961, 726257494917121};
static const u64 ROOTS[3] = {26, 43, 7};

typedef struct { vector p, inverse; } Modulus;

INLINE vector all(double x) { return (vector){x, x, x, x}; }
static Modulus modulus(u64 p) { return (Modulus){all((double)p), all(1 / (double)p)}; }

#ifdef TRACK /* names a file that defines it */
#include TRACK
#else
#define tracked(which, x, unit) (x)
#endif

/* Compilers turn the four calls into one instruction, or call a library as exact as that. */
INLINE vector fma4(vector a, vector b, vector c) {
    return (vector){__builtin_fma(a[0], b[0], c[0]), __builtin_fma(a[1], b[1], c[1]),
                    __builtin_fma(a[2], b[2], c[2]), __builtin_fma(a[3], b[3], c[3])};
}

/* Return x / p, rounded to whole numbers. */
INLINE vector quotients(vector x, Modulus q) {
    const vector c = all(0x1.8p52);
    return tracked(1, fma4(x, q.inverse, c) - c, q.p[0]);
}

INLINE vector times(vector a, vector b, Modulus q) {
    vector high = tracked(0, a, q.p[0]) * tracked(0, b, q.p[0]), low = fma4(a, b, -high);
    return fma4(-quotients(high, q), q.p, high) + low;
}

INLINE vector reduced(vector x, Modulus q) {
    return fma4(-quotients(tracked(0, x, q.p[0]), q), q.p, x);
}

/* Return the residues in the range 0 .. p - 1. */
INLINE vector canonical(vector x, Modulus q) {
    x = reduced(x, q);
    return x + (vector)((words)(x < 0) & (words)q.p);
}

static u64 product(u64 a, u64 b, u64 p) { return (u64)((u128)a * b % p); }
static u64 power(u64 x, u64 e, u64 p) {
    u64 y = 1;
    for (x %= p; e; e >>= 1, x = product(x, x, p))
        if (e & 1) y = product(y, x, p);
    return y;
}

static u64 inverse(u64 x, u64 p) { return power(x, p - 2, p); }
static double balanced(u64 x, u64 p) { return x > p / 2 ? -(double)(p - x) : (double)x; }

/* ---- Cyclic convolution: X^(4h) - r^4 is the product of all X^h - i^k r ---- */

enum { EVEN = 1, ODD }; // 0 was another kind, which libraries built before still have.
typedef struct {
    Modulus q;
    double *roots, *inverses; /* r[0] = 1, r[2b]^2 = r[b], r[2b + 1] = i r[2b] */
    int kind, both;
    u64 *done;
} Ring;

static void fill_table(double *roots, size_t length, u64 root, size_t order, u64 p) {
    const Modulus q = modulus(p);
    double r[64]; /* the last of order 4, each before it of twice the order */
    int t = 0;
    for (; order >= 4; order /= 2, root = product(root, root, p)) r[t++] = balanced(root, p);
    roots[0] = 1;
    /* With fewer than four entries, a vector also writes later ones, which are rewritten later. */
    for (size_t have = 1; have < length; have *= 2) {
        const vector next = all(r[--t]);
        for (size_t i = 0; i < have; i += 4)
            *(loose *)(roots + have + i) = reduced(times(*(loose *)(roots + i), next, q), q);
    }
}

/* Split block number b of the blocks of 4h vectors. */
INLINE void split(vector *x, size_t h, size_t b, const double *roots, Modulus q) {
    const vector r = all(roots[b]), s = all(roots[2 * b]), is = all(roots[2 * b + 1]);
    for (vector *end = x + h; x < end; x++) {
        vector x2 = times(x[2 * h], r, q), x3 = times(x[3 * h], r, q), x0 = reduced(x[0], q);
        vector y1 = times(x[h] + x3, s, q), y3 = times(x[h] - x3, is, q);
        vector even = x0 + x2, odd = x0 - x2;
        x[0] = even + y1, x[h] = even - y1, x[2 * h] = odd + y3, x[3 * h] = odd - y3;
    }
}

/* Undo `split`, leaving a factor of 4; `roots` are the inverse ones. */
INLINE void join(vector *x, size_t h, size_t b, const double *roots, Modulus q) {
    const vector r = all(roots[b]), s = all(roots[2 * b]), is = all(roots[2 * b + 1]);
    for (vector *end = x + h; x < end; x++) {
        vector even = x[0] + x[h], y1 = times(x[0] - x[h], s, q);
        vector odd = x[2 * h] + x[3 * h], y3 = times(x[2 * h] - x[3 * h], is, q);
        x[0] = reduced(even + odd, q), x[2 * h] = times(even - odd, r, q);
        x[h] = y1 + y3, x[3 * h] = times(y1 - y3, r, q);
    }
}

/* Split X^(2h) - 1 into X^h - 1 and X^h + 1, or undo it, leaving a factor of 2. */
static void halves(vector *x, size_t h, Modulus q) {
    for (vector *end = x + h; x < end; x++) {
        vector sum = reduced(x[0] + x[h], q), difference = reduced(x[0] - x[h], q);
        x[0] = sum, x[h] = difference;
    }
}

/* Replace x and y by x (x + 2y), x^2 + y^2; or by x^2 + (x + y)^2, x (x + 2y). */
INLINE void combine(vector *x, vector *y, size_t n, int kind, Modulus q) {
    for (size_t i = 0; i < n; i++) {
        vector a = reduced(x[i], q), b = reduced(y[i], q), c = reduced(a + b, q);
        vector even = times(a, a + b + b, q), square = times(a, a, q);
        if (kind == EVEN) x[i] = even, y[i] = square + times(b, b, q);
        else x[i] = square + times(c, c, q), y[i] = even;
    }
}

/* Convolve block number b of the blocks of n vectors. */
static void convolve(vector *x, vector *y, size_t n, size_t b, const Ring *f) {
    /* Only the whole array, b = 0, may have an odd power of two as its length. */
    const size_t factors = n & 0x5555555555555555 ? 4 : 2, h = n / factors;
    vector *z[2] = {x, y};
    for (int k = 0; k < 2; k++)
        factors == 2 ? halves(z[k], h, f->q) : split(z[k], h, b, f->roots, f->q);
    if (h == 1) combine(x, y, 4, f->kind, f->q);
    else
        for (size_t i = 0; i < factors; i++)
            convolve(x + i * h, y + i * h, h, factors * b + i, f);
    for (int k = 0; k <= f->both; k++)
        factors == 2 ? halves(z[k], h, f->q) : join(z[k], h, b, f->inverses, f->q);
    /* Each point is counted once, with the block of this size that it is in. */
    if (n == 256) __atomic_fetch_add(f->done, 4 * n, __ATOMIC_RELAXED);
}

/* ---- Rows ---- */
typedef struct {
    double i, sine; /* i and -1/2 + sine are roots of order 4 and 3 */
    size_t columns;
    vector power[3][8], step[3];
} Powers;

/* Fill in the constants of a root of order N, or of its inverse, times `scale`. */
static void fill_powers(Powers *to, u64 root, u64 scale, int m, size_t columns, u64 p) {
    u64 order_4m = power(root, columns, p), w = 1;
    to->columns = columns;
    to->i = balanced(power(order_4m, (u64)m, p), p);
    to->sine = balanced((power(order_4m, 4, p) + (p + 1) / 2) % p, p);
    for (int k = 0; k < 4 * m; k++, w = product(w, root, p)) {
        u64 x = scale;
        for (int c = 0; c < 8; c++, x = product(x, w, p))
            to->power[k % m][c][k % 4] = balanced(x, p);
        to->step[k % m][k % 4] = balanced(power(w, 8, p), p);
    }
}

INLINE void transpose(vector *x) {
    vector a = SHUFFLE(words, x[0], x[1], 0, 4, 2, 6), b = SHUFFLE(words, x[0], x[1], 1, 5, 3, 7);
    vector c = SHUFFLE(words, x[2], x[3], 0, 4, 2, 6), d = SHUFFLE(words, x[2], x[3], 1, 5, 3, 7);
    x[0] = SHUFFLE(words, a, c, 0, 1, 4, 5), x[1] = SHUFFLE(words, b, d, 0, 1, 4, 5);
    x[2] = SHUFFLE(words, a, c, 2, 3, 6, 7), x[3] = SHUFFLE(words, b, d, 2, 3, 6, 7);
}

/* Transform four columns of 4 m rows, of which x[g][i] is row (4 g + m i) % 4m. */
INLINE void transform_rows(vector x[3][4], int m, const Powers *k, Modulus q) {
    for (int i = 0; m == 3 && i < 4; i++) {
        vector sum = x[1][i] + x[2][i], v = times(x[1][i] - x[2][i], all(k->sine), q);
        vector u = x[0][i] + times(sum, (q.p - 1) / 2, q);
        x[0][i] = reduced(x[0][i] + sum, q);
        x[1][i] = reduced(u + v, q), x[2][i] = reduced(u - v, q);
    }
    for (int g = 0; g < m; g++) {
        vector a = x[g][0] + x[g][2], b = x[g][0] - x[g][2], c = x[g][1] + x[g][3];
        vector d = times(x[g][1] - x[g][3], all(k->i), q);
        x[g][0] = a + c, x[g][1] = b + d, x[g][2] = a - c, x[g][3] = b - d;
    }
}

INLINE size_t row(int g, int i, int m) { return (size_t)((4 * g + m * i) % (4 * m)); }
/* Multiply four vectors by the powers `w`, and advance these to the next columns. */
INLINE void advance(vector *x, vector *w, vector step, Modulus q) {
    for (int i = 0; i < 4; i++) x[i] = times(x[i], w[i], q), w[i] = times(w[i], step, q);
}

/* Return the residues of four limbs; limbs from n on count as zeros. */
INLINE vector residues_of(const u64 *limbs, size_t n, size_t i, Modulus q) {
    const words exponent = (words)all(0x1p52);
    words x = {0};
    if (i + 4 <= n) x = *(const loose_words *)(limbs + i);
    else if (i < n) memcpy(&x, limbs + i, 8 * (n - i));
    vector low = (vector)((x & ((1 << 30) - 1)) | exponent) - 0x1p52;
    vector high = ((vector)((x >> 30) | exponent) - 0x1p52) * 0x1p30;
    return fma4(-quotients(high, q), q.p, high) + low; /* exact, as 2^30 divides high */
}

/* Eight columns at a time: in each row they fill one cache line. */
INLINE void split_rows(vector *x, const u64 *limbs, size_t n, int m, Powers k, Modulus q) {
    const size_t columns = k.columns;
    for (size_t j = 0; j < columns; j += 8) {
        vector y[2][3][4];
        for (int g = 0; g < m; g++)
            for (int i = 0; i < 4; i++)
                for (int v = 0; v < 2; v++)
                    y[v][g][i] = residues_of(limbs, n, row(g, i, m) * columns + j + 4 * v, q);
        for (int v = 0; v < 2; v++) {
            transform_rows(y[v], m, &k, q);
            for (int g = 0; g < m; g++) {
                transpose(y[v][g]);
                advance(y[v][g], &k.power[g][4 * v], k.step[g], q);
                memcpy(x + g * columns + j + 4 * v, y[v][g], sizeof y[v][g]);
            }
        }
    }
}

INLINE void join_rows(double *out, const vector *x, size_t n, int m, Powers k, Modulus q) {
    const size_t columns = k.columns;
    for (size_t j = 0; j < columns; j += 8) {
        vector y[2][3][4];
        for (int v = 0; v < 2; v++) {
            for (int g = 0; g < m; g++) {
                memcpy(y[v][g], x + g * columns + j + 4 * v, sizeof y[v][g]);
                advance(y[v][g], &k.power[g][4 * v], k.step[g], q);
                transpose(y[v][g]);
            }
            transform_rows(y[v], m, &k, q);
        }
        for (int g = 0; g < m; g++)
            for (int i = 0; i < 4; i++) {
                vector line[2] = {reduced(y[0][g][i], q), reduced(y[1][g][i], q)};
                size_t at = row(g, i, m) * columns + j;
                if (at < n) memcpy(out + at, line, sizeof line);
            }
    }
}

/* ---- Product ---- */
typedef struct { size_t m, columns, points; } Shape;
static Shape shape(size_t n) {
    size_t columns = 16;
    while (12 * columns < n) columns *= 2;
    if (8 * columns >= n) return (Shape){1, 2 * columns, 8 * columns};
    return (Shape){3, columns, 12 * columns};
}

/* Return how many points the transform for a product of n limbs has. */
size_t bigfib_points(size_t n) { return shape(n).points; }

INLINE void transform(Ring f, int m, Shape s, u64 p, u64 root, const u64 *a, size_t na,
                      const u64 *b, size_t nb, size_t n, double *residues, vector *x) {
    const size_t columns = s.columns;
    vector *y = f.both ? x + s.points / 4 : (vector *)residues;
    Powers k;
    fill_powers(&k, root, 1, m, columns, p);
    split_rows(x, a, na, m, k, f.q);
    split_rows(y, b, nb, m, k, f.q);
    for (int g = 0; g < m; g++)
        convolve(x + g * columns, y + g * columns, columns, 0, &f);
    fill_powers(&k, inverse(root, p), inverse(s.points, p), m, columns, p);
    join_rows(residues, x, n, m, k, f.q);
    if (f.both) join_rows(residues + s.points, y, n, m, k, f.q);
}

/* Compute the first n coefficients of a product modulo a prime (0, 1 or 2). `kind` is EVEN,
   a (a + 2b) and a^2 + b^2, or ODD, a^2 + (a + b)^2 and a (a + 2b): of F(k) and F(k - 1) these are
   F(2k) and F(2k - 1), or F(2k + 1) and F(2k). `residues` has room for `bigfib_points` doubles for
   each wanted result (`both`, or the first), aligned to 32 bytes; `work` has room for a quarter of
   `bigfib_points` more than that. `done` grows with the points that are done. */
void bigfib_transform(int kind, int both, int prime, double *residues, size_t n, const u64 *a,
                      size_t na, const u64 *b, size_t nb, double *work, u64 *done) {
    const Shape s = shape(n);
    const size_t half = s.columns / 2;
    const u64 p = PRIMES[prime], root = power(ROOTS[prime], (p - 1) / s.points, p);
    const u64 column = power(root, 4 * (u64)s.m, p);
    fesetround(FE_TONEAREST); /* Python's mode, too */
    Ring f = {modulus(p), work, work + half, kind, both, done};
    vector *x = (vector *)(work + s.columns);
    fill_table(f.roots, half, column, s.columns, p);
    fill_table(f.inverses, half, inverse(column, p), s.columns, p);
    if (s.m == 1) transform(f, 1, s, p, root, a, na, b, nb, n, residues, x);
    else transform(f, 3, s, p, root, a, na, b, nb, n, residues, x);
}

#define BASE 1000000000000000000u

/* Divide x < 2^111 by the base. The estimate is at most one too small: it loses 2^47 / 10^18 by the
   low bits of x, 2^-12 by the rounded inverse, and the fraction. */
INLINE u64 divided(u128 x, u64 *remainder) {
    const u64 inverse = (u64)(((u128)1 << 123) / BASE);
    u64 quotient = (u64)((u128)(u64)(x >> 47) * inverse >> 76);
    u64 r = (u64)x - quotient * BASE, more = r >= BASE;
    return *remainder = r - more * BASE, quotient + more;
}

INLINE void to_words(u64 *to, vector x) {
    *(loose_words *)to = (words)(x + 0x1p52) ^ (words)all(0x1p52);
}

/* Make n limbs of the residues modulo each prime; return how many are significant. */
size_t bigfib_carry(u64 *limbs, size_t n, const double *r1, const double *r2, const double *r3) {
    enum { BLOCK = 64 };
    const u64 p1 = PRIMES[0], p2 = PRIMES[1], p3 = PRIMES[2];
    const u64 low = (u64)((u128)p1 * p2 % BASE), high = (u64)((u128)p1 * p2 / BASE);
    const Modulus q1 = modulus(p1), q2 = modulus(p2), q3 = modulus(p3);
    const vector g12 = all(balanced(inverse(p1, p2), p2)), g13 = all(balanced(inverse(p1, p3), p3));
    const vector g23 = all(balanced(inverse(p2, p3), p3));
    u64 next = 0, after = 0, w1[BLOCK], w2[BLOCK], w3[BLOCK];
    fesetround(FE_TONEAREST);
    for (size_t i = 0, count; i < n; i += count) {
        count = n - i < BLOCK ? n - i : BLOCK;
        /* v1 + p1 v2 + p1 p2 v3 each. Vectors first: scalar code would wait for fresh stores. */
        for (size_t c = 0; c < count; c += 4) {
            vector v1 = canonical(*(loose *)(r1 + i + c), q1);
            vector v2 = canonical(times(*(loose *)(r2 + i + c) - v1, g12, q2), q2);
            vector v3 = times(*(loose *)(r3 + i + c) - v1, g13, q3);
            v3 = canonical(times(v3 - v2, g23, q3), q3);
            to_words(w1 + c, v1), to_words(w2 + c, v2), to_words(w3 + c, v3);
        }
        for (size_t c = 0; c < count; c++) {
            u64 d0, d1, rest = divided((u128)w2[c] * p1 + (u128)w3[c] * low + w1[c], &d0);
            u64 d2 = divided((u128)w3[c] * high + rest, &d1), sum = d0 + next;
            u64 over = (sum >= BASE) + (sum >= 2 * BASE);
            limbs[i + c] = sum - over * BASE, next = after + d1 + over, after = d2;
        }
    }
    while (n && !limbs[n - 1]) n--;
    return n;
}

/* ---- Limbs ---- */

/* Return eight digits, split into halves of four, two and one. */
static u64 eight_digits(u64 x) {
    u64 y = x / 10000 | x % 10000 << 32, high = y * 10486 >> 20 & 0x7f0000007f;
    y = high | (y - high * 100) << 16, high = y * 103 >> 10 & 0xf000f000f000f;
    return high | (y - high * 10) << 8 | 0x3030303030303030;
}

/* Write 18 digits of each of n limbs. */
void bigfib_write(u8 *digits, const u64 *limbs, size_t n) {
    for (; n-- > 0; digits += 18) {
        u64 x = limbs[n], high = eight_digits(x / 10000000000), end = x % 100;
        u64 low = eight_digits(x % 10000000000 / 100);
        memcpy(digits, &high, 8), memcpy(digits + 8, &low, 8);
        digits[16] = (u8)('0' + end / 10), digits[17] = (u8)('0' + end % 10);
    }
}

/* Read n digits into (n + 17) / 18 limbs. */
void bigfib_read(u64 *limbs, const u8 *digits, size_t n) {
    for (size_t start; n; n = start, limbs++) {
        start = n < 18 ? 0 : n - 18, *limbs = 0;
        for (size_t i = start; i < n; i++) *limbs = *limbs * 10 + (u64)(digits[i] - '0');
    }
}

/* Return the residue of n limbs modulo a number below 2^62. */
u64 bigfib_residue(const u64 *limbs, size_t n, u64 modulus) {
    enum { BLOCK = 16 }; /* products of 2^60 and 2^62, and one more, are below 2^128 */
    u64 weights[BLOCK + 1] = {1}, residue = 0;
    for (int i = 0; i < BLOCK; i++) weights[i + 1] = product(weights[i], BASE % modulus, modulus);
    for (size_t count; n; n -= count) {
        u128 sum = (u128)residue * weights[BLOCK];
        count = n % BLOCK ? n % BLOCK : BLOCK;
        for (size_t i = 0; i < count; i++) sum += (u128)limbs[n - count + i] * weights[i];
        residue = (u64)(sum % modulus);
    }
    return residue;
}
