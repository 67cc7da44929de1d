/* Sums over the pixels of one galaxy that measuring it repeats. Called by pixels.py, which owns every array, without
   Python's lock. Planes are rows one after another. Sizes are checked before anything is read, and what does not fit is
   an answer (UNFIT). Nothing is kept between calls, so any number of threads may be here.

   Every function does the arithmetic of its numpy form in pixels.py: light is float, sums are double, and a product is
   rounded before it is added to anything (-ffp-contract=off).                                                           */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

#if defined(_WIN32)
#define PUBLIC __declspec(dllexport)
#else
#define PUBLIC __attribute__((visibility("default")))
#endif

#define BLOCK 64     /* columns that are summed side by side: an addition takes a few cycles, and none waits for another */
#define CIRCLES 64   /* circles into which the light of a source is divided */
#define KNOWN 256    /* centers whose asymmetry is kept; of more it is worked out again */
#define MOST 32768   /* pixels of a side: more is no picture, and products of sizes stay far from the end of int64 */

enum { FINE = -1, UNFIT = -4 };

PUBLIC int64_t galsearch_pixels_version(void) { return 1; }

static double moved_in(double at, double last) { return at > 0 ? (at < last ? at : last) : 0; }  /* NaN to 0 */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Add up in `sums` (4, rings), zero before, what rings one pixel wide have: pixels, light, its square, and radius.       */
PUBLIC int64_t galsearch_rings(const double *radius, const float *light, const uint8_t *good, int64_t pixels,
                               double *sums, int64_t rings)
{
    if (pixels < 0 || rings < 1) return UNFIT;
    for (int64_t i = 0; i < pixels; i++) {
        if (!good[i]) continue;
        if (!(radius[i] >= 0 && radius[i] < (double)rings)) return UNFIT;
        double *ring = sums + (int64_t)radius[i], value = light[i];
        ring[0] += 1;
        ring[rings] += value;
        ring[2 * rings] += value * value;
        ring[3 * rings] += radius[i];
    }
    return FINE;
}

#define FIVE(...) __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__
static const double OFFSETS[2][25] = {
    {FIVE(-.4, -.2, 0, .2, .4)},
    {FIVE(-.4), FIVE(-.2), FIVE(0), FIVE(.2), FIVE(.4)},
};

/* Add up what circles around a source have, `CIRCLES` of equal width out to `reach`, into `sums` (3, CIRCLES): light of
   usable pixels, their area, and that of the others. A pixel is 5 x 5 points. What lies in another segment, or is masked,
   is not usable.                                                                                                        */
FOR_EACH_PROCESSOR
static void add_circles(const float *light, const uint8_t *mask, const int32_t *segments, int64_t height, int64_t width,
                        double x, double y, double reach, int32_t id, double *sums)
{
    const double density = CIRCLES / reach, margin = reach + 1.5;
    const int64_t first = (int64_t)moved_in(ceil(x - margin), (double)width);
    const int64_t end = (int64_t)moved_in(floor(x + margin) + 1, (double)width);
    const int64_t top = (int64_t)moved_in(ceil(y - margin), (double)height);
    const int64_t low = (int64_t)moved_in(floor(y + margin) + 1, (double)height);
    for (int64_t row = top; row < low; row++) {
        for (int64_t column = first; column < end; column++) {
            const double dx = (double)column - x, dy = (double)row - y, distance = sqrt(dx * dx + dy * dy);
            if (!(distance < margin)) continue;
            const int64_t pixel = row * width + column;
            const int usable = !mask[pixel] && (segments[pixel] == 0 || segments[pixel] == id);
            const double value = usable ? (double)light[pixel] / 25 : 0;
            const int32_t nearest = (int32_t)(distance > 0.57 ? (distance - 0.57) * density : 0);  /* 0.4 sqrt 2, and a bit */
            double *sum = sums, *area = sums + (2 - usable) * CIRCLES;
            int32_t circles[25];
            uint64_t counts = 0;  /* of points in this circle and the next seven, a byte each */
            for (int k = 0; k < 25; k++) {
                const double across = dx + OFFSETS[0][k], down = dy + OFFSETS[1][k];
                circles[k] = (int)(sqrt(across * across + down * down) * density);
            }
            if (1.14 * density < 7) {
                for (int k = 0; k < 25; k++) counts += (uint64_t)1 << 8 * (circles[k] - nearest);
                for (int k = nearest; counts && k < CIRCLES; k++, counts >>= 8) {
                    sum[k] += value * (double)(counts & 255);
                    area[k] += 0.04 * (double)(counts & 255);
                }
            } else {
                for (int k = 0; k < 25; k++)
                    if (circles[k] < CIRCLES) { sum[circles[k]] += value; area[circles[k]] += 0.04; }
            }
        }
    }
}

/* Write the radii (sources, count) of circles that have so much light, `parts` (sources, count), out to each source's
   reach. What is not usable has the mean of the rest of its circle.                                                     */
PUBLIC int64_t galsearch_light_radii(const float *light, const uint8_t *mask, const int32_t *segments, int64_t height,
                                     int64_t width, const double *x, const double *y, const double *reach,
                                     const int32_t *ids, int64_t sources, const double *parts, int64_t count,
                                     double *radii)
{
    if (height < 1 || height > MOST || width < 1 || width > MOST || sources < 0 || count < 0) return UNFIT;
    for (int64_t i = 0; i < sources; i++) {
        double sums[3 * CIRCLES] = {0}, *inside = sums, *seen = sums + CIRCLES, *hidden = sums + 2 * CIRCLES;
        if (!(reach[i] >= 0.01 && reach[i] < MOST && fabs(x[i]) < MOST && fabs(y[i]) < MOST)) return UNFIT;
        add_circles(light, mask, segments, height, width, x[i], y[i], reach[i], ids[i], sums);
        for (int k = 0; k < CIRCLES; k++)
            inside[k] = (k ? inside[k - 1] : 0) + (seen[k] > 0 ? inside[k] * (seen[k] + hidden[k]) / seen[k] : 0);
        for (int64_t j = i * count; j < (i + 1) * count; j++) {
            int k = 0;
            while (k < CIRCLES && inside[k] < parts[j]) k++;
            const double before = k ? inside[k - 1] : 0, more = k < CIRCLES ? inside[k] - before : 0;
            radii[j] = reach[i] / CIRCLES * (k + (more > 0 && parts[j] > 0 ? (parts[j] - before) / more : 0));
        }
    }
    return FINE;
}

/* A square of light and one as large that is 1 where it is usable, of `half` pixels to each side of the middle, and one
   of `reach` pixels that is 1 for those that count. `at` is the center (x, y) that shifts are counted from, in
   pixels from the middle, and `sky` the difference of two pixels of sky.                                                */
struct turned {
    const float *light, *good, *aperture;
    int64_t half, reach;
    double at[2], sky;
};

/* Return the asymmetry about a shift (x, y) of the center; infinite where no pair of pixels is usable. What lies opposite
   a pixel is interpolated bilinearly between up to four.                                                                */
FOR_EACH_PROCESSOR
static double asymmetry(const struct turned *t, double shift_x, double shift_y)
{
    const int64_t half = t->half, reach = t->reach, side = 2 * half + 1, wide = 2 * reach + 1;
    const double x = 2 * (t->at[0] + shift_x), y = 2 * (t->at[1] + shift_y), fx = x - floor(x), fy = y - floor(y);
    const double parts[4] = {(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy};
    const float shares[4] = {(float)parts[0], (float)parts[1], (float)parts[2], (float)parts[3]};
    double sums[3] = {0}, squares = 0;
    int64_t corners[4] = {0};  /* what lies opposite the middle; one without a share is the first one again */
    for (int k = 0; k < 4; k++) {
        const int64_t corner = (half + (int64_t)floor(y) + k / 2) * side + half + (int64_t)floor(x) + k % 2;
        corners[k] = parts[k] > 0 ? corner : corners[0];
        squares += parts[k] * parts[k];
    }
    for (int64_t left = 0; left < wide; left += BLOCK) {
        double difference[BLOCK] = {0}, total[BLOCK] = {0}, number[BLOCK] = {0};
        const int64_t n = least(BLOCK, wide - left);
        for (int64_t row = -reach; row <= reach; row++) {
            const float *here = t->light + (half + row) * side + half - reach + left;
            const float *counted = t->aperture + (row + reach) * wide + left;
            const int64_t back = reach - left - row * side;
            const float *l0 = t->light + corners[0] + back, *l1 = t->light + corners[1] + back;
            const float *l2 = t->light + corners[2] + back, *l3 = t->light + corners[3] + back;
            const float *g0 = t->good + corners[0] + back, *g1 = t->good + corners[1] + back;
            const float *g2 = t->good + corners[2] + back, *g3 = t->good + corners[3] + back;
            for (int64_t i = 0; i < n; i++) {
                const float opposite = l0[-i] * shares[0] + l1[-i] * shares[1] + l2[-i] * shares[2] + l3[-i] * shares[3];
                const float weight = counted[i] * g0[-i] * g1[-i] * g2[-i] * g3[-i];
                difference[i] += fabsf(here[i] - opposite) * weight;
                total[i] += fabsf(here[i]) * weight;
                number[i] += weight;
            }
        }
        for (int64_t i = 0; i < n; i++) {
            sums[0] += difference[i];
            sums[1] += total[i];
            sums[2] += number[i];
        }
    }
    return sums[1] > 0 ? (sums[0] - sums[2] * t->sky * sqrt((1 + squares) / 2)) / sums[1] : INFINITY;
}

struct centers { int64_t count; double x[KNOWN], y[KNOWN], value[KNOWN]; };

static double known_asymmetry(const struct turned *t, struct centers *known, double x, double y)
{
    for (int64_t i = 0; i < known->count; i++)
        if (known->x[i] == x && known->y[i] == y) return known->value[i];
    const double value = asymmetry(t, x, y);
    if (known->count < KNOWN) {
        known->x[known->count] = x; known->y[known->count] = y; known->value[known->count++] = value;
    }
    return value;
}

/* Follow the asymmetry downhill from `at`, in steps of 1 to 1/8 pixel, no farther than `margin` - 1. Write the least one
   and the shift (x, y) that has it into `out`.                                                                          */
PUBLIC int64_t galsearch_asymmetry(const float *light, const float *good, int64_t half, const float *aperture,
                                   int64_t reach, int64_t margin, const double *at, double sky, double *out)
{
    static const double neighbors[4][2] = {{-1, 0}, {1, 0}, {0, -1}, {0, 1}};
    const struct turned t = {light, good, aperture, half, reach, {at[0], at[1]}, sky};
    struct centers known = {0};
    double best[2] = {0, 0};
    if (half < 0 || half > MOST || reach < 0 || margin < 1 || margin > MOST || half - reach < 2 * margin + 2) return UNFIT;
    if (!(fabs(at[0]) <= 0.5 && fabs(at[1]) <= 0.5)) return UNFIT;
    double value = known_asymmetry(&t, &known, 0, 0);
    for (double step = 1; step >= 0.125; step /= 2) {
        for (int moved = 1; moved && fmax(fabs(best[0]), fabs(best[1])) < (double)margin - 1; ) {
            const double x = best[0], y = best[1];
            moved = 0;
            for (int k = 0; k < 4; k++) {
                const double next[2] = {x + step * neighbors[k][0], y + step * neighbors[k][1]};
                const double other = known_asymmetry(&t, &known, next[0], next[1]);
                if (!(other < value)) continue;
                value = other; best[0] = next[0]; best[1] = next[1];
                moved = 1;
            }
        }
    }
    out[0] = value; out[1] = best[0]; out[2] = best[1];
    return FINE;
}

/* Blur a plane by a symmetric kernel, down and then across; `weights` are of the middle and of 1 to `radius` pixels
   beside it. Beyond the plane is 0. `scratch` has room for 2 (width + radius) numbers.                                  */
FOR_EACH_PROCESSOR
PUBLIC int64_t galsearch_blur(const float *plane, int64_t height, int64_t width, const double *weights, int64_t radius,
                              double *scratch, float *out)
{
    if (height < 1 || height > MOST || width < 1 || width > MOST || radius < 0 || radius > MOST) return UNFIT;
    double *sum = scratch, *line = scratch + width + radius;  /* a row with `radius` zeros on each side */
    memset(sum + width, 0, (size_t)(width + 2 * radius) * sizeof *sum);
    for (int64_t y = 0; y < height; y++) {
        for (int64_t x = 0; x < width; x++) sum[x] = plane[y * width + x] * weights[0];
        for (int64_t k = radius; k > 0; k--) {
            const int above = y - k >= 0, below = y + k < height;
            const float *one = plane + (above ? y - k : y) * width, *other = plane + (below ? y + k : y) * width;
            if (above && below)
                for (int64_t x = 0; x < width; x++) sum[x] += ((double)one[x] + (double)other[x]) * weights[k];
            else if (above || below)
                for (int64_t x = 0; x < width; x++) sum[x] += (above ? one[x] : other[x]) * weights[k];
        }
        for (int64_t x = 0; x < width; x++) line[x] = (float)sum[x];
        for (int64_t x = 0; x < width; x++) sum[x] = line[x] * weights[0];
        for (int64_t k = radius; k > 0; k--)
            for (int64_t x = 0; x < width; x++) sum[x] += (line[x - k] + line[x + k]) * weights[k];
        for (int64_t x = 0; x < width; x++) out[y * width + x] = (float)sum[x];
    }
    return FINE;
}

/* Smooth a plane with a box of `size` pixels, down and then across; a box of even size begins a pixel earlier. Beyond the
   plane is 0. `scratch` has room for 2 width + size numbers.                                                            */
FOR_EACH_PROCESSOR
PUBLIC int64_t galsearch_box(const float *plane, int64_t height, int64_t width, int64_t size, double *scratch, float *out)
{
    if (height < 1 || height > MOST || width < 1 || width > MOST || size < 1 || size > MOST) return UNFIT;
    const int64_t before = size / 2, after = size - before;  /* pixels before one, and from it on */
    double *sum = scratch, *line = scratch + width + before;
    memset(scratch, 0, (size_t)(2 * width + size) * sizeof *scratch);
    for (int64_t y = 0; y < least(after - 1, height); y++)
        for (int64_t x = 0; x < width; x++) sum[x] += plane[y * width + x];
    for (int64_t y = 0; y < height; y++) {
        const float *first = plane + (y - before - 1) * width, *last = plane + (y + after - 1) * width;
        for (int64_t x = 0; y + after - 1 < height && x < width; x++) sum[x] += last[x];
        for (int64_t x = 0; y - before - 1 >= 0 && x < width; x++) sum[x] -= first[x];
        double across = 0;
        for (int64_t x = 0; x < width; x++) line[x] = (float)(sum[x] / (double)size);
        for (int64_t x = 0; x < after - 1; x++) across += line[x];
        for (int64_t x = 0; x < width; x++) {
            across += line[x + after - 1];
            out[y * width + x] = (float)(across / (double)size);
            across -= line[x - before];
        }
    }
    return FINE;
}

/* Interpolate light and its usable share bilinearly at points of a plane; those beyond its pixels are moved in.         */
PUBLIC int64_t galsearch_sampled(const float *light, const uint8_t *good, int64_t height, int64_t width,
                                 const double *x, const double *y, int64_t points, double *out, double *share)
{
    if (height < 2 || height > MOST || width < 2 || width > MOST || points < 0) return UNFIT;
    for (int64_t i = 0; i < points; i++) {
        const double across = moved_in(x[i], (double)width - 1.001), down = moved_in(y[i], (double)height - 1.001);
        const int64_t column = (int64_t)across, row = (int64_t)down, first = row * width + column;
        const double fx = across - (double)column, fy = down - (double)row;
        const double parts[4] = {(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy};
        const int64_t pixels[4] = {first, first + 1, first + width, first + width + 1};
        double sum = 0, usable = 0;
        for (int k = 0; k < 4; k++) {
            sum += parts[k] * light[pixels[k]];
            usable += parts[k] * good[pixels[k]];
        }
        out[i] = sum / (usable > 1e-6 ? usable : 1e-6);
        share[i] = usable;
    }
    return FINE;
}

/* The best amplitude and sky of a profile of a shape, by least squares, and what chi squared they leave.                */
struct fit { double amplitude, sky, chi; };

static struct fit fit_of(const double *shape, const double *light, const double *weight, int64_t rings)
{
    struct fit fit = {0, 0, INFINITY};
    double s = 0, sf = 0, sff = 0, sy = 0, sfy = 0, chi = 0;
    for (int64_t i = 0; i < rings; i++) {
        const double wf = weight[i] * shape[i], wy = weight[i] * light[i];
        s += weight[i]; sf += wf; sff += wf * shape[i]; sy += wy; sfy += wy * shape[i];
    }
    const double det = sff * s - sf * sf;
    if (!(det > 1e-9 * sff * s)) return fit;
    const double slope = sfy * s - sf * sy;
    if (!(slope > 1e-12 * fabs(sfy) * s)) return fit;  /* even light is matched by the sky alone, but for rounding */
    fit.amplitude = slope / det;
    fit.sky = (sff * sy - sf * sfy) / det;
    for (int64_t i = 0; i < rings; i++) {
        const double rest = light[i] - fit.amplitude * shape[i] - fit.sky;
        chi += rest * rest * weight[i];
    }
    fit.chi = chi;
    return fit;
}

/* Write chi squared (indices, radii) of Sersic profiles, with the best amplitude and sky of each, infinite where the
   amplitude is not positive. b(n) is that of Ciotti and Bertin 1999 (A&A 352, 447), eq. 18. `scratch` has room for
   2 rings numbers.                                                                                                      */
PUBLIC int64_t galsearch_sersic(const double *log_r, const double *light, const double *weight, int64_t rings,
                                const double *indices, int64_t count, const double *log_radii, int64_t radii,
                                double *scratch, double *chi)
{
    double *power = scratch, *shape = scratch + rings;
    if (rings < 1 || count < 0 || radii < 0) return UNFIT;
    for (int64_t i = 0; i < count; i++) {
        const double n = indices[i], b = 2 * n - 1.0 / 3 + 4 / (405 * n) + 46 / (25515 * n * n);
        for (int64_t k = 0; k < rings; k++) power[k] = exp(log_r[k] / n);
        for (int64_t j = 0; j < radii; j++) {
            const double part = b * exp(-log_radii[j] / n);
            for (int64_t k = 0; k < rings; k++) shape[k] = exp(b - part * power[k]);
            chi[i * radii + j] = fit_of(shape, light, weight, rings).chi;
        }
    }
    return FINE;
}
