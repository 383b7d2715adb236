// A USB camera in user space: gadgetfs on dummy_hcd, video class over a bulk endpoint (dummy_hcd has no isochronous
// ones), one MJPEG format of one size. Killing it is the cable pulled out.
//
//   uvc_camera WIDTH HEIGHT FPS [--truncate N] [--error N] [--stall N] FRAME.jpg …
//
// Sends the frames in turn, without end. --truncate cuts every Nth frame in half, --error marks every Nth as damaged,
// --stall stops sending after N frames while staying plugged in.
#include <errno.h>
#include <fcntl.h>
#include <linux/usb/ch9.h>
#include <linux/usb/gadgetfs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned char u8;

enum { PAYLOAD = 16384, HEADER = 12, MAX_FRAMES = 256 };
enum { VIDEO_STREAMING = 1, PROBE = 1, COMMIT = 2 };
enum { GET_CUR = 0x81, GET_MIN = 0x82, GET_MAX = 0x83, GET_LEN = 0x85, GET_INFO = 0x86, GET_DEF = 0x87 };

static struct { u8 *bytes; size_t length; } frames[MAX_FRAMES];
static int frame_count, width, height, truncate_nth, error_nth, stall_after;
static volatile int streaming;
static volatile unsigned interval; // of 100 ns

#pragma pack(push, 1)
static struct control {
  unsigned short hint; u8 format, frame; unsigned interval;
  unsigned short key, p, quality, window, delay; unsigned max_frame, max_payload;
} probe, commit;
#pragma pack(pop)

static void fill(struct control *c) {
  memset(c, 0, sizeof *c);
  c->hint = 1; c->format = 1; c->frame = 1; c->interval = interval;
  c->max_frame = width * height * 2; c->max_payload = PAYLOAD;
}

static void fail(const char *what) { perror(what); exit(1); }

#define PUT(...) do { u8 t[] = {__VA_ARGS__}; memcpy(o, t, sizeof t); o += sizeof t; } while (0)
#define LE2(x) (u8)(x), (u8)((x) >> 8)
#define LE4(x) (u8)(x), (u8)((x) >> 8), (u8)((x) >> 16), (u8)((x) >> 24)

// Configuration with a control and a streaming interface, after the USB video class 1.0.
static int configuration(u8 *b, int high_speed) {
  u8 *o = b;
  int packet = high_speed ? 512 : 64, w = width, h = height;
  PUT(9, 2, 0, 0, 2, 1, 0, 0x80, 250);                                  // configuration
  PUT(8, 0x0b, 0, 2, 0x0e, 3, 0, 0);                                    // association
  PUT(9, 4, 0, 0, 0, 0x0e, 1, 0, 0);                                    // control interface
  PUT(13, 0x24, 1, 0, 1, 40, 0, LE4(48000000), 1, 1);
  PUT(18, 0x24, 2, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0);        // camera
  PUT(9, 0x24, 3, 2, 1, 1, 0, 1, 0);                                    // output
  PUT(9, 4, 1, 0, 1, 0x0e, 2, 0, 0);                                    // streaming interface
  int total = 14 + 11 + 30 + 6;
  PUT(14, 0x24, 1, 1, LE2(total), 0x81, 0, 2, 0, 0, 0, 1, 0);
  PUT(11, 0x24, 6, 1, 1, 1, 1, 0, 0, 0, 0);                             // MJPEG
  PUT(30, 0x24, 7, 1, 0, LE2(w), LE2(h), LE4(1000000), LE4(400000000), LE4(w * h * 2), LE4(interval), 1, LE4(interval));
  PUT(6, 0x24, 0x0d, 1, 1, 4);                                          // colour
  PUT(7, 5, 0x81, 2, LE2(packet), 0);                                   // endpoint
  int n = o - b;
  b[2] = n; b[3] = n >> 8;
  return n;
}

static int nth(long k, int n) { return n > 0 && k % n == n - 1; }

// Sends frames as long as the host wants them.
static void *play(void *unused) {
  (void)unused;
  int endpoint = open("/dev/gadget/ep1in-bulk", O_RDWR);
  if (endpoint < 0) fail("ep1in-bulk");
  u8 setup[18] = {1, 0, 0, 0, 7, 5, 0x81, 2, 64, 0, 0, 7, 5, 0x81, 2, 0, 2, 0};
  if (write(endpoint, setup, sizeof setup) < 0) fail("endpoint");
  static u8 packet[PAYLOAD];
  int toggle = 0;
  for (long k = 0;; k++) {
    while (!streaming || (stall_after && k >= stall_after)) usleep(20000);
    size_t length = frames[k % frame_count].length, at = 0;
    if (nth(k, truncate_nth)) length /= 2;
    while (at < length) {
      size_t n = length - at;
      int last = 1;
      if (n > PAYLOAD - HEADER) { n = PAYLOAD - HEADER; last = 0; }
      // A transfer that ends with a full packet would go on.
      if (last && (n + HEADER) % 512 == 0) { n--; last = 0; }
      packet[0] = HEADER;
      packet[1] = 0x80 | toggle | (last ? 2 : 0) | (nth(k, error_nth) ? 0x40 : 0);
      memset(packet + 2, 0, HEADER - 2);
      memcpy(packet + HEADER, frames[k % frame_count].bytes + at, n);
      at += n;
      if (write(endpoint, packet, n + HEADER) < 0) {
        if (errno == ESHUTDOWN || errno == ENODEV) return 0;
        break;
      }
    }
    toggle ^= 1;
    usleep(interval / 10);
  }
}

static void answer_string(int fd, int index, int length) {
  static const char *texts[] = {"", "Callosity", "Test Camera", "SN123"};
  u8 z[64] = {4, 3, 9, 4};
  if (index > 0) {
    const char *text = texts[index & 3];
    z[0] = 2 + 2 * strlen(text);
    for (size_t i = 0; text[i]; i++) { z[2 + 2 * i] = text[i]; z[3 + 2 * i] = 0; }
  }
  if (write(fd, z, length < z[0] ? length : z[0]) < 0) perror("string");
}

static void negotiate(int fd, struct usb_ctrlrequest *c, int selector) {
  struct control *which = selector == PROBE ? &probe : &commit, asked;
  int length = c->wLength < 26 ? c->wLength : 26;
  u8 z[256] = {0};
  if (!(c->bRequestType & 0x80)) {
    if (read(fd, z, c->wLength) < 0) perror("negotiation");
    fill(which);
    if (selector == COMMIT) streaming = 1;
    return;
  }
  switch (c->bRequest) {
    case GET_CUR: case GET_MIN: case GET_MAX: case GET_DEF:
      fill(&asked);
      if (write(fd, &asked, length) < 0) perror("negotiation");
      break;
    case GET_LEN: z[0] = 26; if (write(fd, z, c->wLength < 2 ? c->wLength : 2) < 0) perror("length"); break;
    case GET_INFO: z[0] = 3; if (write(fd, z, 1) < 0) perror("info"); break;
    default: if (read(fd, z, 0) < 0) {} // a stall
  }
}

static void setup(int fd, struct usb_ctrlrequest *c) {
  static int started;
  static pthread_t player;
  u8 z[8] = {0};
  int in = c->bRequestType & 0x80, selector = c->wValue >> 8, refused = 0;
  if ((c->bRequestType & 0x60) == 0) {
    switch (c->bRequest) {
      case USB_REQ_GET_DESCRIPTOR:
        if (selector == USB_DT_STRING) answer_string(fd, c->wValue & 255, c->wLength);
        else refused = 1;
        break;
      case USB_REQ_SET_CONFIGURATION:
        if (c->wValue && !started) { started = 1; pthread_create(&player, 0, play, 0); usleep(200000); }
        if (read(fd, z, 0) < 0) {}
        break;
      case USB_REQ_SET_INTERFACE: streaming = 0; if (read(fd, z, 0) < 0) {} break;
      case USB_REQ_GET_INTERFACE: if (write(fd, z, 1) < 0) {} break;
      default: refused = 1;
    }
  } else if ((c->bRequestType & 0x60) == 0x20 && (c->wIndex & 255) == VIDEO_STREAMING &&
             (selector == PROBE || selector == COMMIT)) {
    negotiate(fd, c, selector);
  } else {
    refused = 1;
  }
  // Answering in the wrong direction stalls.
  if (refused) { if (in ? read(fd, z, 0) < 0 : write(fd, z, 0) < 0) {} }
}

static void load(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) fail(path);
  fseek(file, 0, SEEK_END);
  size_t length = ftell(file);
  rewind(file);
  frames[frame_count].bytes = malloc(length);
  frames[frame_count].length = length;
  if (fread(frames[frame_count++].bytes, 1, length, file) != length) fail(path);
  fclose(file);
}

int main(int count, char **arguments) {
  if (count < 5) { fprintf(stderr, "uvc_camera WIDTH HEIGHT FPS [OPTION N] FRAME.jpg …\n"); return 1; }
  width = atoi(arguments[1]); height = atoi(arguments[2]); interval = 10000000 / atoi(arguments[3]);
  for (int i = 4; i < count; i++) {
    if (!strcmp(arguments[i], "--truncate")) truncate_nth = atoi(arguments[++i]);
    else if (!strcmp(arguments[i], "--error")) error_nth = atoi(arguments[++i]);
    else if (!strcmp(arguments[i], "--stall")) stall_after = atoi(arguments[++i]);
    else if (frame_count < MAX_FRAMES) load(arguments[i]);
  }
  int fd = open("/dev/gadget/dummy_udc", O_RDWR);
  if (fd < 0) fail("/dev/gadget/dummy_udc");
  static u8 described[4096];
  u8 *o = described + 4;
  o += configuration(o, 0);
  o += configuration(o, 1);
  PUT(18, 1, 0, 2, 0xef, 2, 1, 64, 0x6b, 0x1d, 0x02, 0x01, 0, 1, 1, 2, 3, 1);
  if (write(fd, described, o - described) != o - described) fail("descriptors");
  fill(&probe); fill(&commit);
  for (;;) {
    struct usb_gadgetfs_event events[5];
    int got = read(fd, events, sizeof events);
    if (got < 0) { usleep(100000); continue; }
    for (int i = 0; i < got / (int)sizeof events[0]; i++) {
      if (events[i].type == GADGETFS_SETUP) setup(fd, &events[i].u.setup);
      else if (events[i].type == GADGETFS_DISCONNECT) streaming = 0;
    }
  }
}
