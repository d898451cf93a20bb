/* Record the largest |x| / p that is reduced or multiplied [0], and the largest |h| / p^2 [1]. */
double bigfib_tracked[2];

static vector tracked(int which, vector x, double unit) {
    for (int i = 0; i < 4; i++) {
        double size = (x[i] < 0 ? -x[i] : x[i]) / unit;
        if (size > bigfib_tracked[which]) bigfib_tracked[which] = size;
    }
    return x;
}
