//! Baseline JPEGs at an eighth of their size, as libjpeg gives them and in a third of its time.
//!
//! A survey is water: of nearly every frame only this is ever looked at, and reading it is most of the work. At an
//! eighth a block of luminance is one pixel, its first coefficient; all others are only passed over, several of them with
//! one look into a table. Chrominance that is stored at half the size gives 2 × 2 pixels a block. Formats and
//! procedures: ITU-T T.81 (1992); arithmetic: libjpeg's (`jidctred.c`, `jdcolor.c`), bit for bit.
//!
//! Whatever is out of the ordinary (progressive or arithmetic coding, other colours, a bad code, a missing end) is left to
//! libjpeg, which knows what to say of it: here it gives `None`.

use image::RgbImage;

use super::jpeg::{END, RESTART_INTERVAL, START_OF_SCAN, Segment, Segments, is_start_of_frame};

const START: u8 = 0xd8;
const COMMENT: u8 = 0xfe;
const QUANTISATION: u8 = 0xdb;
const HUFFMAN: u8 = 0xc4;
const ADOBE: u8 = 0xee;
const JFIF: u8 = 0xe0;

/// Coefficients of a block.
const COEFFICIENTS: usize = 64;

/// Bits of a look into a table.
const LOOK: u32 = 12;

/// Where the coefficients of a block lie, in the order in which they are coded (T.81, figure 5).
#[rustfmt::skip]
const ZIGZAG: [u8; COEFFICIENTS] = [
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The whole photograph at an eighth of its size, rounded up, before orientation; `None` where libjpeg has to decode it.
pub(super) fn decode_at_an_eighth(bytes: &[u8]) -> Option<RgbImage> {
    let header = Header::read(bytes)?;
    let planes = header.scan(bytes)?;
    planes.to_rgb(header.width.div_ceil(8), header.height.div_ceil(8))
}

/// What a component's blocks become at an eighth.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reduced {
    /// Each block is one pixel.
    ToOne,
    /// Each block is 2 × 2 pixels: it covers that many blocks of the luminance.
    ToFour,
}

struct Component {
    identifier: u8,
    /// Blocks across and down in each unit that is coded at once.
    across: usize,
    down: usize,
    /// In the order in which coefficients are coded.
    quantisation: [u16; COEFFICIENTS],
    reduced: Reduced,
    dc: usize,
    ac: usize,
}

/// What must be known to read the coded data.
struct Header {
    width: u32,
    height: u32,
    components: Vec<Component>,
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// Units between restarts; 0 where there are none.
    restart_interval: usize,
    /// Where the coded data begins.
    data: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut tables: [Option<[u16; COEFFICIENTS]>; 4] = [None; 4];
        let mut frame: Option<&[u8]> = None;
        let mut header = Self {
            width: 0,
            height: 0,
            components: Vec::new(),
            dc: [None, None, None, None],
            ac: [None, None, None, None],
            restart_interval: 0,
            data: 0,
        };
        let mut has_jfif = false;
        let mut transform = None;
        let mut expected = 0;
        for segment in Segments::of(bytes) {
            let content = segment.content;
            // Of bytes between segments libjpeg warns.
            if segment.start != expected {
                return None;
            }
            expected += match segment.marker {
                START => 2,
                _ => 4 + content.len(),
            };
            match segment.marker {
                QUANTISATION => read_quantisation(content, &mut tables)?,
                HUFFMAN => header.read_huffman(content)?,
                RESTART_INTERVAL => {
                    let &[high, low] = content else { return None };
                    header.restart_interval = usize::from(u16::from_be_bytes([high, low]));
                }
                JFIF if content.starts_with(b"JFIF\0") => {
                    // Of other revisions libjpeg warns.
                    if content.get(5) != Some(&1) {
                        return None;
                    }
                    has_jfif = true;
                }
                ADOBE if content.starts_with(b"Adobe") => transform = content.get(11),
                0xc0 | 0xc1 if frame.is_none() => frame = Some(content),
                marker if is_start_of_frame(marker) => return None,
                START_OF_SCAN => {
                    header.read_frame(frame?, &tables)?;
                    header.read_scan(&segment)?;
                    let is_ycc = match (header.components.len(), has_jfif, transform) {
                        (1, ..) | (3, true, _) | (3, false, Some(1)) => true,
                        // Numbered 1, 2, 3 they are luminance and chrominance, by libjpeg's rule.
                        (3, false, None) => {
                            let identifiers = header.components.iter().map(|c| c.identifier);
                            identifiers.eq([1, 2, 3])
                        }
                        _ => false,
                    };
                    return is_ycc.then_some(header);
                }
                START | 0xe0..=0xef | COMMENT => {}
                _ => return None,
            }
        }
        None
    }

    fn read_huffman(&mut self, mut content: &[u8]) -> Option<()> {
        while let [class_and_place, rest @ ..] = content {
            let lengths: &[u8; 16] = rest.first_chunk()?;
            let count: usize = lengths.iter().map(|&n| usize::from(n)).sum();
            let symbols = rest.get(16..16 + count)?;
            let table = Huffman::new(lengths, symbols, class_and_place >> 4 == 1)?;
            let tables = match class_and_place >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return None,
            };
            *tables.get_mut(usize::from(class_and_place & 0xf))? = Some(table);
            content = &rest[16 + count..];
        }
        Some(())
    }

    fn read_frame(
        &mut self,
        content: &[u8],
        tables: &[Option<[u16; COEFFICIENTS]>; 4],
    ) -> Option<()> {
        let &[8, h1, h0, w1, w0, count, ref components @ ..] = content else {
            return None;
        };
        self.height = u32::from(u16::from_be_bytes([h1, h0]));
        self.width = u32::from(u16::from_be_bytes([w1, w0]));
        if self.width == 0 || self.height == 0 || components.len() != 3 * usize::from(count) {
            return None;
        }
        let blocks = |sampling: u8| (usize::from(sampling >> 4), usize::from(sampling & 0xf));
        let (across, down) = match *components {
            // A single component is coded block by block, however it was sampled.
            [_, sampling, _] if matches!(blocks(sampling), (1..=4, 1..=4)) => (1, 1),
            [_, luminance, _, _, 0x11, _, _, 0x11, _] => blocks(luminance),
            _ => return None,
        };
        if !matches!((across, down), (1 | 2, 1 | 2)) {
            return None;
        }
        for (i, component) in components.chunks_exact(3).enumerate() {
            let is_halved = i > 0 && (across, down) == (2, 2);
            self.components.push(Component {
                identifier: component[0],
                across: if i == 0 { across } else { 1 },
                down: if i == 0 { down } else { 1 },
                quantisation: (*tables.get(usize::from(component[2]))?)?,
                reduced: if is_halved {
                    Reduced::ToFour
                } else {
                    Reduced::ToOne
                },
                dc: 0,
                ac: 0,
            });
        }
        Some(())
    }

    fn read_scan(&mut self, segment: &Segment) -> Option<()> {
        let (&count, rest) = segment.content.split_first()?;
        let (components, band) = rest.split_at_checked(2 * usize::from(count))?;
        if usize::from(count) != self.components.len() || band != [0, 63, 0] {
            return None;
        }
        for (component, choice) in self.components.iter_mut().zip(components.chunks_exact(2)) {
            if component.identifier != choice[0] {
                return None;
            }
            component.dc = usize::from(choice[1] >> 4);
            component.ac = usize::from(choice[1] & 0xf);
        }
        // After the marker, the length and what it counts.
        self.data = segment.start + 4 + segment.content.len();
        Some(())
    }

    fn scan(&self, bytes: &[u8]) -> Option<Planes> {
        let unit = |size: u32, blocks: usize| size.div_ceil(8 * blocks as u32) as usize;
        let luminance = self.components.first()?;
        let units_across = unit(self.width, luminance.across);
        let units_down = unit(self.height, luminance.down);
        let mut readers = Vec::new();
        let mut planes = Vec::new();
        for component in &self.components {
            readers.push(BlockReader {
                dc: self.dc.get(component.dc)?.as_ref()?,
                ac: self.ac.get(component.ac)?.as_ref()?,
                quantisation: &component.quantisation,
                predicted: 0,
            });
            let each = match component.reduced {
                Reduced::ToOne => 1,
                Reduced::ToFour => 2,
            };
            let width = units_across * component.across * each;
            let height = units_down * component.down * each;
            planes.push(Plane {
                width,
                samples: vec![0; width * height],
            });
        }
        let mut bits = Bits::new(bytes.get(self.data..)?);
        let mut until_restart = self.restart_interval;
        let mut restarts = 0;
        for down in 0..units_down {
            for across in 0..units_across {
                if self.restart_interval > 0 {
                    if until_restart == 0 {
                        bits.restart(restarts)?;
                        restarts = (restarts + 1) % 8;
                        readers.iter_mut().for_each(|reader| reader.predicted = 0);
                        until_restart = self.restart_interval;
                    }
                    until_restart -= 1;
                }
                let parts = self.components.iter().zip(&mut readers).zip(&mut planes);
                for ((component, reader), plane) in parts {
                    for y in 0..component.down {
                        for x in 0..component.across {
                            let column = across * component.across + x;
                            let row = down * component.down + y;
                            match component.reduced {
                                Reduced::ToOne => {
                                    let sample = reader.one_pixel(&mut bits)?;
                                    plane.samples[row * plane.width + column] = sample;
                                }
                                Reduced::ToFour => {
                                    let [above, below] = reader.four_pixels(&mut bits)?;
                                    let first = 2 * row * plane.width + 2 * column;
                                    let second = first + plane.width;
                                    plane.samples[first..first + 2].copy_from_slice(&above);
                                    plane.samples[second..second + 2].copy_from_slice(&below);
                                }
                            }
                        }
                    }
                }
            }
            if bits.is_past_the_end() {
                return None;
            }
        }
        bits.ends()?;
        Some(Planes {
            planes,
            across: luminance.across,
            down: luminance.down,
        })
    }
}

fn read_quantisation(
    mut content: &[u8],
    tables: &mut [Option<[u16; COEFFICIENTS]>; 4],
) -> Option<()> {
    while let [precision_and_place, rest @ ..] = content {
        let mut table = [0; COEFFICIENTS];
        let bytes = match precision_and_place >> 4 {
            0 => 1,
            1 => 2,
            _ => return None,
        };
        let values = rest.get(..bytes * COEFFICIENTS)?;
        for (entry, value) in table.iter_mut().zip(values.chunks_exact(bytes)) {
            *entry = value
                .iter()
                .fold(0, |all, &byte| all << 8 | u16::from(byte));
        }
        *tables.get_mut(usize::from(precision_and_place & 0xf))? = Some(table);
        content = &rest[values.len()..];
    }
    Some(())
}

/// What a look into a table of several symbols gives.
#[derive(Clone, Copy, Default)]
struct Passed {
    /// Bits of the symbols and of the values that follow them; 0 where not even one symbol is seen whole.
    bits: u8,
    /// Coefficients that they stand for.
    coefficients: u8,
    /// Whether the last of them ends the block.
    ends: bool,
}

/// A table of codes.
struct Huffman {
    /// For each beginning of [`LOOK`] bits the length of its code and the symbol; length 0 where it is longer.
    first: Box<[(u8, u8); 1 << LOOK]>,
    /// For coefficients that are passed over.
    several: Box<[Passed; 1 << LOOK]>,
    /// For each length from 1 bit, by length − 1: the first code above it, left-aligned in 16 bits, and what to add to a code
    /// of this length for its symbol's place.
    longer: [(u32, i32); 16],
    symbols: Vec<u8>,
}

impl Huffman {
    /// `lengths` are the numbers of codes of 1 to 16 bits. `None` where they are more than there are, or where there is a
    /// code of ones alone, which T.81 forbids.
    fn new(lengths: &[u8; 16], symbols: &[u8], is_passed_over: bool) -> Option<Self> {
        // The size of a difference is at most 11 in photographs of 8 bits.
        if !is_passed_over && symbols.iter().any(|&size| size > 11) {
            return None;
        }
        let mut first = vec![(0, 0); 1 << LOOK];
        let mut longer = [(0, 0); 16];
        let (mut code, mut place) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(lengths) {
            longer[length as usize - 1].1 = place as i32 - code as i32;
            if count > 0 && code + u32::from(count) >= 1 << length {
                return None;
            }
            for _ in 0..count {
                if length <= LOOK {
                    let start = (code << (LOOK - length)) as usize;
                    first[start..start + (1 << (LOOK - length))]
                        .fill((length as u8, symbols[place]));
                }
                code += 1;
                place += 1;
            }
            longer[length as usize - 1].0 = code << (16 - length);
            code <<= 1;
        }
        let first = <Box<[_; 1 << LOOK]>>::try_from(first).ok()?;
        let several: Vec<Passed> = match is_passed_over {
            true => (0..1 << LOOK)
                .map(|look| Passed::all_in(look, &first))
                .collect(),
            false => vec![Passed::default(); 1 << LOOK],
        };
        Some(Self {
            first,
            several: several.try_into().ok()?,
            longer,
            symbols: symbols.to_vec(),
        })
    }

    /// The length of the code with which 16 bits begin, and its symbol.
    fn look_up(&self, bits: u32) -> Option<(u32, u8)> {
        let (length, symbol) = self.first[(bits >> (16 - LOOK)) as usize];
        if length > 0 {
            return Some((length.into(), symbol));
        }
        let length = (LOOK + 1..=16).find(|&length| bits < self.longer[length as usize - 1].0)?;
        let code = (bits >> (16 - length)) as i32;
        let place = usize::try_from(code + self.longer[length as usize - 1].1).ok()?;
        Some((length, *self.symbols.get(place)?))
    }
}

impl Passed {
    fn all_in(look: usize, codes: &[(u8, u8); 1 << LOOK]) -> Self {
        let mut passed = Self::default();
        while u32::from(passed.bits) < LOOK {
            let seen = LOOK - u32::from(passed.bits);
            let rest = look << passed.bits & ((1 << LOOK) - 1);
            let (length, symbol) = codes[rest];
            if length == 0 || u32::from(length) > seen {
                break;
            }
            let (run, size) = (symbol >> 4, symbol & 0xf);
            passed.bits += length + size;
            if symbol == 0 {
                passed.ends = true;
                break;
            }
            // Without a value only a run of 16 is a symbol.
            if size == 0 && run != 15 {
                passed.bits -= length + size;
                break;
            }
            passed.coefficients += run + 1;
        }
        passed
    }
}

/// Coded data as bits, the first the highest.
struct Bits<'a> {
    bytes: &'a [u8],
    /// The next byte that is not in `buffer`.
    next: usize,
    /// The next bits from the highest on; below those that count there may be more of the same data.
    buffer: u64,
    /// Bits in `buffer` that count.
    count: u32,
    /// Of those, zeros that stand in for data that there is not.
    stand_in: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            next: 0,
            buffer: 0,
            count: 0,
            stand_in: 0,
        }
    }

    /// At least 32 bits.
    #[inline(always)]
    fn fill(&mut self) {
        // As much as there is room for, always: whether it was needed is not to be foreseen, and a wrong guess costs more.
        if let Some(eight) = self.bytes.get(self.next..self.next + 8)
            && let Ok(eight) = eight.try_into()
        {
            let word = u64::from_be_bytes(eight);
            // No byte of it is 0xff: no marker, nothing stuffed.
            let low = 0x0101_0101_0101_0101;
            if (!word).wrapping_sub(low) & word & (low << 7) == 0 {
                self.buffer |= word >> self.count;
                let whole = (63 - self.count) / 8;
                self.next += whole as usize;
                self.count += 8 * whole;
                return;
            }
        }
        self.fill_by_bytes();
    }

    #[cold]
    fn fill_by_bytes(&mut self) {
        // What is below those that count is read again.
        self.buffer &= !(u64::MAX.checked_shr(self.count).unwrap_or(0));
        while self.count < 56 {
            let byte = match self.bytes[self.next..] {
                [0xff, 0, ..] => {
                    self.next += 2;
                    0xff
                }
                [0xff, ..] | [] => {
                    self.stand_in += 8;
                    0
                }
                [byte, ..] => {
                    self.next += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    #[inline(always)]
    fn look<const BITS: u32>(&self) -> u32 {
        (self.buffer >> (64 - BITS)) as u32
    }

    #[inline(always)]
    fn pass(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// A value of `size` bits, up to 16 (T.81, F.2.2.1: EXTEND).
    #[inline(always)]
    fn value(&mut self, size: u32) -> i32 {
        if size == 0 {
            return 0;
        }
        let bits = (self.buffer >> (64 - size)) as i32;
        self.pass(size);
        if bits >> (size - 1) == 0 {
            bits - (1 << size) + 1
        } else {
            bits
        }
    }

    /// Whether more was read than there is.
    fn is_past_the_end(&self) -> bool {
        self.count < self.stand_in
    }

    /// Nothing but bits that fill up a byte is left before the next marker, which is given.
    fn marker(&self) -> Option<u8> {
        let left = self.count.checked_sub(self.stand_in)?;
        match self.bytes.get(self.next..)? {
            &[0xff, marker, ..] if left < 8 && marker != 0 => Some(marker),
            _ => None,
        }
    }

    fn restart(&mut self, number: u8) -> Option<()> {
        if self.marker()? != 0xd0 + number {
            return None;
        }
        self.next += 2;
        (self.buffer, self.count, self.stand_in) = (0, 0, 0);
        Some(())
    }

    fn ends(&self) -> Option<()> {
        (self.marker()? == END).then_some(())
    }
}

/// Reads the blocks of a component.
struct BlockReader<'a> {
    dc: &'a Huffman,
    ac: &'a Huffman,
    quantisation: &'a [u16; COEFFICIENTS],
    predicted: i32,
}

impl BlockReader<'_> {
    /// The first coefficient.
    #[inline(always)]
    fn first(&mut self, bits: &mut Bits) -> Option<i32> {
        bits.fill();
        let (length, size) = self.dc.look_up(bits.look::<16>())?;
        bits.pass(length);
        self.predicted += bits.value(size.into());
        Some(self.predicted)
    }

    /// The next symbol of a further coefficient: zeros before it and the size of its value; the code is passed.
    #[inline(always)]
    fn symbol(&self, bits: &mut Bits) -> Option<(usize, u32)> {
        let (length, symbol) = self.ac.look_up(bits.look::<16>())?;
        bits.pass(length);
        Some((usize::from(symbol >> 4), u32::from(symbol & 0xf)))
    }

    /// A block as one pixel (`jpeg_idct_1x1`).
    #[inline(always)]
    fn one_pixel(&mut self, bits: &mut Bits) -> Option<u8> {
        let first = self.first(bits)?;
        let mut place = 1;
        while place < COEFFICIENTS {
            bits.fill();
            let passed = self.ac.several[bits.look::<LOOK>() as usize];
            let after = place + usize::from(passed.coefficients);
            // Of symbols that pass the block's end the last ones are of the next block.
            if passed.bits > 0 && after + usize::from(passed.ends) <= COEFFICIENTS {
                bits.pass(passed.bits.into());
                if passed.ends {
                    break;
                }
                place = after;
                continue;
            }
            let (zeros, size) = self.symbol(bits)?;
            match (zeros, size) {
                (0, 0) => break,
                (15, 0) => place += 16,
                (_, 0) => return None,
                _ => {
                    bits.pass(size);
                    place += zeros + 1;
                }
            }
            if place > COEFFICIENTS {
                return None;
            }
        }
        sample((first * i32::from(self.quantisation[0])).into(), 3)
    }

    /// A block as 2 × 2 pixels, row by row (`jpeg_idct_2x2`).
    #[inline(always)]
    fn four_pixels(&mut self, bits: &mut Bits) -> Option<[[u8; 2]; 2]> {
        let mut block = [0i32; COEFFICIENTS];
        block[0] = self.first(bits)? * i32::from(self.quantisation[0]);
        let mut place = 1;
        // At least as large as the largest of the others.
        let mut largest = 0;
        while place < COEFFICIENTS {
            bits.fill();
            let (zeros, size) = self.symbol(bits)?;
            match (zeros, size) {
                (0, 0) => break,
                (15, 0) => place += 16,
                (_, 0) => return None,
                _ => {
                    place += zeros;
                    let value = bits.value(size) * i32::from(*self.quantisation.get(place)?);
                    block[usize::from(ZIGZAG[place])] = value;
                    largest |= value.unsigned_abs();
                    place += 1;
                }
            }
        }
        if place > COEFFICIENTS {
            return None;
        }
        if largest == 0 {
            let one = sample((block[0] << 2).into(), 5)?;
            return Some([[one; 2]; 2]);
        }
        // Further out the arithmetic of 32 bits might not do; no camera writes such.
        if largest.max(block[0].unsigned_abs()) >= 1 << 15 {
            return None;
        }
        idct_to_four(&block)
    }
}

/// The bits by which `idct_to_four` scales its constants, and those that are kept between its two passes.
const CONSTANT_BITS: u32 = 13;
const KEPT_BITS: u32 = 2;

/// The inverse transform of a block to 2 × 2 pixels; even rows and columns but the first say nothing of them. Coefficients
/// are below 2¹⁵.
fn idct_to_four(block: &[i32; COEFFICIENTS]) -> Option<[[u8; 2]; 2]> {
    let mut rows = [[0; 8]; 2];
    for column in [0, 1, 3, 5, 7] {
        let sums = idct_to_two(std::array::from_fn(|row| block[8 * row + column]));
        for (row, sum) in rows.iter_mut().zip(sums) {
            // Further out libjpeg's vector code differs from its own arithmetic.
            let sum = i32::try_from(sum).ok()?;
            row[column] = descale(sum.into(), CONSTANT_BITS - KEPT_BITS + 2) as i32;
        }
    }
    let mut samples = [[0; 2]; 2];
    for (row, samples) in rows.into_iter().zip(&mut samples) {
        for (sum, out) in idct_to_two(row).into_iter().zip(samples) {
            *out = sample(sum, CONSTANT_BITS + KEPT_BITS + 5)?;
        }
    }
    Some(samples)
}

/// The inverse transform of eight coefficients to two values, which are 2 to the power of [`CONSTANT_BITS`] + 2 times as
/// large.
fn idct_to_two(line: [i32; 8]) -> [i64; 2] {
    let [first, one, _, three, _, five, _, seven] = line.map(i64::from);
    let even = first << (CONSTANT_BITS + 2);
    let odd = one * 29692 - three * 10426 + five * 6967 - seven * 5906;
    [even + odd, even - odd]
}

/// Divided by a power of two, rounded.
#[inline(always)]
fn descale(value: i64, bits: u32) -> i64 {
    (value + (1 << (bits - 1))) >> bits
}

#[inline(always)]
fn sample(value: i64, bits: u32) -> Option<u8> {
    limited(descale(value, bits))
}

/// A sample around 0 as one of 0 to 255; `None` so far out that libjpeg's table is at its end.
#[inline(always)]
fn limited(value: i64) -> Option<u8> {
    (-512..512)
        .contains(&value)
        .then(|| (value + 128).clamp(0, 255) as u8)
}

/// The samples of a component.
struct Plane {
    width: usize,
    samples: Vec<u8>,
}

/// What was decoded: luminance, and chrominance where there is any.
struct Planes {
    planes: Vec<Plane>,
    /// Blocks of luminance across and down for one of chrominance.
    across: usize,
    down: usize,
}

impl Planes {
    fn to_rgb(&self, width: u32, height: u32) -> Option<RgbImage> {
        let (columns, rows) = (width as usize, height as usize);
        let mut pixels = vec![0; 3 * columns * rows];
        let row_of = |plane: &Plane, row: usize| -> std::ops::Range<usize> {
            row * plane.width..(row + 1) * plane.width
        };
        for (row, out) in pixels.chunks_exact_mut(3 * columns).enumerate() {
            let luminance = &self.planes[0];
            let luminance = &luminance.samples[row_of(luminance, row)];
            match &self.planes[1..] {
                [blue, red] => {
                    // Stored at half the size both ways, it was decoded to as many samples as there are of luminance.
                    let is_as_fine = self.across == self.down;
                    let (across, down) = if is_as_fine {
                        (1, 1)
                    } else {
                        (self.across, self.down)
                    };
                    let blue = &blue.samples[row_of(blue, row / down)];
                    let red = &red.samples[row_of(red, row / down)];
                    for (column, out) in out.chunks_exact_mut(3).enumerate() {
                        let at = column / across;
                        out.copy_from_slice(&rgb(luminance[column], blue[at], red[at]));
                    }
                }
                _ => {
                    for (&sample, out) in luminance.iter().zip(out.chunks_exact_mut(3)) {
                        out.fill(sample);
                    }
                }
            }
        }
        RgbImage::from_raw(width, height, pixels)
    }
}

/// JFIF's colours (`ycc_rgb_convert`).
#[inline(always)]
fn rgb(luminance: u8, blue: u8, red: u8) -> [u8; 3] {
    let (y, blue, red) = (
        i32::from(luminance),
        i32::from(blue) - 128,
        i32::from(red) - 128,
    );
    let half = 1 << 15;
    let channels = [
        y + ((91881 * red + half) >> 16),
        y + ((-22554 * blue - 46802 * red + half) >> 16),
        y + ((116130 * blue + half) >> 16),
    ];
    channels.map(|channel| channel.clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
    use proptest::prelude::*;

    use super::super::decode::DecodeError;
    use super::super::jpeg::Jpeg;
    use super::*;

    /// What libjpeg makes of it, and what it warns of.
    fn by_libjpeg(bytes: &[u8]) -> Result<(RgbImage, Option<String>), DecodeError> {
        let jpeg = Jpeg::read_header(bytes)?;
        jpeg.decode_by_libjpeg(bytes, jpeg.whole(8))
    }

    #[derive(Debug, Clone)]
    struct Written {
        size: (u16, u16),
        /// How much neighbouring pixels differ, 0…255.
        roughness: u8,
        seed: u64,
        quality: u8,
        sampling: SamplingFactor,
        colours: ColorType,
        restart_interval: u16,
        optimised: bool,
    }

    fn written() -> impl Strategy<Value = Written> {
        let sampling = prop::sample::select(vec![
            SamplingFactor::F_1_1,
            SamplingFactor::F_2_1,
            SamplingFactor::F_1_2,
            SamplingFactor::F_2_2,
        ]);
        let colours = prop::sample::select(vec![ColorType::Rgb, ColorType::Luma]);
        let how = (1..=100u8, sampling, colours, 0..9u16, any::<bool>());
        ((1..90u16, 1..70u16), any::<u8>(), any::<u64>(), how).prop_map(
            |(size, roughness, seed, how)| Written {
                size,
                roughness,
                seed,
                quality: how.0,
                sampling: how.1,
                colours: how.2,
                restart_interval: how.3,
                optimised: how.4,
            },
        )
    }

    impl Written {
        fn bytes(&self) -> Vec<u8> {
            let channels = if self.colours == ColorType::Luma {
                1
            } else {
                3
            };
            let mut state = self.seed | 1;
            let count = usize::from(self.size.0) * usize::from(self.size.1) * channels;
            let pixels: Vec<u8> = (0..count)
                .map(|i| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let noise = (state >> 56) * u64::from(self.roughness) / 255;
                    ((i / 7) as u64 + noise) as u8
                })
                .collect();
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, self.quality);
            encoder.set_sampling_factor(self.sampling);
            // In colour this encoder then writes a scan for each component; between restarts it fills up more than a byte.
            let optimised = self.optimised && channels == 1 && self.restart_interval == 0;
            encoder.set_optimized_huffman_tables(optimised);
            if self.restart_interval > 0 {
                encoder.set_restart_interval(self.restart_interval);
            }
            let (width, height) = self.size;
            encoder
                .encode(&pixels, width, height, self.colours)
                .unwrap();
            bytes
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn it_is_what_libjpeg_gives(written in written()) {
            let bytes = written.bytes();
            let ours = decode_at_an_eighth(&bytes);
            let (theirs, warning) = by_libjpeg(&bytes).unwrap();
            prop_assert_eq!(warning, None);
            prop_assert!(ours.is_some(), "left to libjpeg");
            let Some(ours) = ours else { return Ok(()) };
            let differ = ours.iter().zip(theirs.iter()).filter(|(a, b)| a != b);
            prop_assert_eq!(differ.count(), 0);
        }

        /// Whatever is decoded here is decoded by libjpeg without a warning, to the same pixels.
        #[test]
        fn what_is_wrong_is_left_to_libjpeg(
            written in written(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            kept in 0.3..1.2_f64,
        ) {
            let mut bytes = written.bytes();
            for (index, value) in changes {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            bytes.truncate((bytes.len() as f64 * kept) as usize);
            let is_readable = Jpeg::read_header(&bytes).is_ok();
            if let Some(ours) = decode_at_an_eighth(&bytes).filter(|_| is_readable) {
                let theirs = by_libjpeg(&bytes);
                prop_assert!(theirs.is_ok(), "{:?}", theirs.err());
                let (theirs, warning) = theirs.unwrap();
                prop_assert_eq!(warning, None);
                prop_assert!(ours == theirs, "other pixels");
            }
        }
    }

    #[test]
    fn progressive_and_other_colours_are_left_to_libjpeg() {
        let pixels = [90; 4 * 32 * 32];
        let encode = |colours, progressive| {
            let mut bytes = Vec::new();
            let mut encoder = Encoder::new(&mut bytes, 90);
            encoder.set_progressive(progressive);
            let channels = if colours == ColorType::Cmyk { 4 } else { 3 };
            encoder
                .encode(&pixels[..channels * 32 * 32], 32, 32, colours)
                .unwrap();
            bytes
        };
        assert!(decode_at_an_eighth(&encode(ColorType::Rgb, false)).is_some());
        assert!(decode_at_an_eighth(&encode(ColorType::Rgb, true)).is_none());
        assert!(decode_at_an_eighth(&encode(ColorType::Cmyk, false)).is_none());
    }
}
