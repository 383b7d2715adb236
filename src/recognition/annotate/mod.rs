//! Drawing what was seen onto the photograph, for people.
//!
//! For each head: the rectangle that was shown to the networks, turned with the head, its two
//! landmarks, and a label. Labels use a subset of DejaVu Sans Bold (printable ASCII; see
//! `DejaVuSans-Bold.LICENSE.txt` beside this file); other letters are drawn as `?`.

use ab_glyph::{FontRef, PxScale};
use image::{Rgb, RgbImage};
use imageproc::drawing::{
    draw_filled_circle_mut, draw_filled_rect_mut, draw_line_segment_mut, draw_text_mut, text_size,
};
use imageproc::rect::Rect;

use crate::geometry::{Affine, HeadCrop, Landmarks, Point};
use crate::identify::{Decision, HeadIdentification};
use crate::pixels::{OUTSIDE_HEAD_PHOTOGRAPH, Photograph, reduce_to_fit, warp};

/// Width above which annotated frames are reduced, in pixels.
pub const LARGEST_WIDTH: u32 = 1600;

const FONT: &[u8] = include_bytes!("DejaVuSans-Bold.subset.ttf");

const IDENTIFIED: Rgb<u8> = Rgb([64, 224, 96]);
const UNCERTAIN: Rgb<u8> = Rgb([255, 200, 40]);
const UNKNOWN: Rgb<u8> = Rgb([255, 96, 208]);
const BONNET: Rgb<u8> = Rgb([255, 255, 255]);
const BLOWHEAD: Rgb<u8> = Rgb([64, 192, 255]);
const SHADE: Rgb<u8> = Rgb([16, 16, 16]);

/// Positions further out than this, in pixels, are cut off: a line is walked pixel by pixel.
const FURTHEST: f64 = 20_000.0;

/// A head as it is to be drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Annotation {
    /// Where the head lies, in pixels of the frame at full size.
    pub landmarks: Landmarks,
    /// What to write beside it, such as `2617  93 %`.
    pub label: String,
    /// Decides the colour.
    pub decision: Decision,
}

impl From<&HeadIdentification> for Annotation {
    fn from(head: &HeadIdentification) -> Self {
        let percent = |p: f32| format!("{:.0} %", 100.0 * p);
        let best = head.best().map_or_else(String::new, |best| {
            format!("{}  {}", best.individual, percent(best.probability))
        });
        Self {
            landmarks: head.landmarks(),
            label: match head.decision {
                Decision::Identified => best,
                Decision::Uncertain => format!("{best} ?"),
                Decision::Unknown => format!("unknown  {}", percent(head.unknown_probability)),
            },
            decision: head.decision,
        }
    }
}

/// Draws heads onto a frame.
///
/// `frame` may be a reduced one: `pixels_from_frame` maps the landmarks, which are in pixels of the
/// frame at full size, into it. `crop` is the rectangle to draw around each head. What lies outside the
/// image is cut off, and a head whose landmarks are no finite numbers is left out.
pub fn annotate(
    frame: &RgbImage,
    pixels_from_frame: &Affine,
    crop: &HeadCrop,
    heads: &[Annotation],
) -> RgbImage {
    let mut image = frame.clone();
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return image;
    }
    // Lines and letters as large as the picture asks for.
    let line = (width.max(height) / 640).clamp(1, 8) as i32;
    let letters = (width.max(height) as f32 / 55.0).clamp(12.0, 64.0);
    for head in heads {
        let corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
        let Some(frame_from_crop) = crop
            .crop_from_frame(&head.landmarks, 1, 1)
            .and_then(|transform| transform.inverse())
        else {
            continue;
        };
        let pixels_from_crop = frame_from_crop.then(pixels_from_frame);
        let corners = corners.map(|(x, y)| pixels_from_crop.apply(Point::new(x, y)));
        let landmarks = head.landmarks.map(pixels_from_frame);
        let drawable = |p: &Point| p.is_finite() && p.x.abs() < FURTHEST && p.y.abs() < FURTHEST;
        if !corners.iter().all(drawable) {
            continue;
        }
        let colour = match head.decision {
            Decision::Identified => IDENTIFIED,
            Decision::Uncertain => UNCERTAIN,
            Decision::Unknown => UNKNOWN,
        };
        for (i, from) in corners.iter().enumerate() {
            thick_line(&mut image, *from, corners[(i + 1) % 4], line, colour);
        }
        for (point, fill) in [(landmarks.blowhead, BLOWHEAD), (landmarks.bonnet, BONNET)] {
            let at = (point.x as i32, point.y as i32);
            draw_filled_circle_mut(&mut image, at, 2 * line + 2, SHADE);
            draw_filled_circle_mut(&mut image, at, 2 * line, fill);
        }
        label(&mut image, &corners, &head.label, letters, colour);
    }
    image
}

/// Reduces a photograph to at most [`LARGEST_WIDTH`] pixels in width and draws heads onto it.
pub fn annotate_photograph(
    photograph: &Photograph,
    crop: &HeadCrop,
    heads: &[Annotation],
) -> RgbImage {
    let (width, height) = photograph.pixels.dimensions();
    let pixels_from_frame = photograph.pixels_from_frame();
    if width <= LARGEST_WIDTH {
        return annotate(&photograph.pixels, &pixels_from_frame, crop, heads);
    }
    let factor = f64::from(LARGEST_WIDTH) / f64::from(width);
    let reduced_height = ((f64::from(height) * factor).round() as u32).max(1);
    let reduced_from_pixels = reduce_to_fit((width, height), LARGEST_WIDTH, reduced_height);
    let reduced = warp(
        &photograph.pixels,
        &reduced_from_pixels,
        LARGEST_WIDTH,
        reduced_height,
        OUTSIDE_HEAD_PHOTOGRAPH,
    );
    annotate(
        &reduced,
        &pixels_from_frame.then(&reduced_from_pixels),
        crop,
        heads,
    )
}

/// The head in its natural shape, `width` pixels wide, turned so that the bonnet lies to the right;
/// black outside the frame. `None` where the landmarks are no head's.
pub fn head_picture(
    photograph: &Photograph,
    crop: &HeadCrop,
    landmarks: &Landmarks,
    width: u32,
) -> Option<RgbImage> {
    let height = ((f64::from(width) / crop.aspect).round() as u32).max(1);
    let crop_from_frame = crop.crop_from_frame(landmarks, width, height)?;
    Some(warp(
        &photograph.pixels,
        &photograph.frame_from_pixels().then(&crop_from_frame),
        width,
        height,
        OUTSIDE_HEAD_PHOTOGRAPH,
    ))
}

fn thick_line(image: &mut RgbImage, from: Point, to: Point, width: i32, colour: Rgb<u8>) {
    for across in -width / 2..=(width - 1) / 2 {
        for down in -width / 2..=(width - 1) / 2 {
            let (dx, dy) = (f64::from(across), f64::from(down));
            draw_line_segment_mut(
                image,
                ((from.x + dx) as f32, (from.y + dy) as f32),
                ((to.x + dx) as f32, (to.y + dy) as f32),
                colour,
            );
        }
    }
}

/// Writes a label above the box, or below it where there is no room, inside the image.
fn label(image: &mut RgbImage, corners: &[Point; 4], text: &str, size: f32, colour: Rgb<u8>) {
    let Ok(font) = FontRef::try_from_slice(FONT) else {
        return;
    };
    let text: String = text
        .chars()
        .map(|c| match c {
            ' '..='~' => c,
            _ => '?',
        })
        .collect();
    let scale = PxScale::from(size);
    let (w, h) = text_size(scale, &font, &text);
    if w == 0 {
        return;
    }
    let margin = (size / 4.0) as i32;
    let (box_w, box_h) = (w as i32 + 2 * margin, h as i32 + 2 * margin);
    let least = |of: fn(&Point) -> f64| corners.iter().map(of).fold(f64::INFINITY, f64::min);
    let most_y = corners
        .iter()
        .map(|p| p.y)
        .fold(f64::NEG_INFINITY, f64::max);
    let left = least(|p| p.x) as i32;
    let above = least(|p| p.y) as i32 - box_h - margin;
    let top = if above >= 0 {
        above
    } else {
        most_y as i32 + margin
    };
    let inside = |at: i32, length: i32, side: u32| at.min(side as i32 - length).max(0);
    let x = inside(left, box_w, image.width());
    let y = inside(top, box_h, image.height());
    draw_filled_rect_mut(
        image,
        Rect::at(x, y).of_size(box_w as u32, box_h as u32),
        SHADE,
    );
    draw_text_mut(image, colour, x + margin, y + margin, scale, &font, &text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn annotation(bonnet: (f64, f64), blowhead: (f64, f64)) -> Annotation {
        Annotation {
            landmarks: Landmarks {
                bonnet: Point::new(bonnet.0, bonnet.1),
                blowhead: Point::new(blowhead.0, blowhead.1),
            },
            label: "Æ 2617  93 %".to_owned(),
            decision: Decision::Identified,
        }
    }

    #[test]
    fn box_and_landmarks_are_where_the_head_is_in_a_reduced_frame() {
        let frame = RgbImage::new(400, 300);
        let half = Affine::scaling(0.5, 0.5);
        let heads = [annotation((440.0, 300.0), (340.0, 300.0))];
        let drawn = annotate(&frame, &half, &HeadCrop::RIGHT_WHALE, &heads);
        assert_eq!(*drawn.get_pixel(220, 150), BONNET);
        assert_eq!(*drawn.get_pixel(170, 150), BLOWHEAD);
        // The rectangle: two head lengths wide, one high, the blowhead at 0.3 of its width.
        let line_near = |x: u32, y: u32| {
            (x - 1..=x + 1).any(|x| (y - 1..=y + 1).any(|y| *drawn.get_pixel(x, y) == IDENTIFIED))
        };
        for (x, y) in [(180, 125), (180, 175), (140, 160), (240, 160)] {
            assert!(line_near(x, y), "({x}, {y})");
        }
        assert!(!line_near(190, 140));
        // The label stands above it and nothing is drawn far away.
        let written = |x0, x1, y0, y1| {
            (x0..x1).any(|x| (y0..y1).any(|y| *drawn.get_pixel(x, y) == IDENTIFIED))
        };
        assert!(written(140, 260, 90, 123));
        assert!(!written(0, 400, 200, 300));
    }

    #[test]
    fn the_head_picture_has_the_landmarks_where_the_crop_says() {
        let mut pixels = RgbImage::new(300, 200);
        pixels.put_pixel(180, 100, Rgb([255, 0, 0]));
        let photograph = Photograph::whole(pixels);
        let landmarks = annotation((180.5, 100.5), (130.5, 100.5)).landmarks;
        let picture = head_picture(&photograph, &HeadCrop::RIGHT_WHALE, &landmarks, 200).unwrap();
        assert_eq!(picture.dimensions(), (200, 100));
        let brightest = picture
            .enumerate_pixels()
            .max_by_key(|(_, _, pixel)| pixel[0])
            .map(|(x, y, _)| (x, y))
            .unwrap();
        assert!(
            brightest.0.abs_diff(160) <= 1 && brightest.1.abs_diff(50) <= 1,
            "{brightest:?}"
        );
    }

    proptest! {
        #[test]
        fn any_head_on_any_frame_is_drawn_or_left_out(
            width in 1..80_u32, height in 1..60_u32,
            points in prop::array::uniform4(prop_oneof![
                -200.0..200.0_f64, Just(f64::NAN), Just(1e300), Just(-1e12),
            ]),
        ) {
            let head = annotation((points[0], points[1]), (points[2], points[3]));
            let frame = RgbImage::new(width, height);
            let drawn = annotate(&frame, &Affine::IDENTITY, &HeadCrop::RIGHT_WHALE, &[head]);
            prop_assert_eq!(drawn.dimensions(), (width, height));
        }
    }
}
