/// Bits of a sample, and how samples lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Depth {
    /// One byte.
    Eight,
    /// 0…1023 in the low bits of two bytes, the lower byte first.
    Ten,
    /// 0…4095, likewise.
    Twelve,
    /// 0…1023, as MIPI's CSI-2 sends them (RAW10): four samples in five bytes. The fifth has the two low bits of each,
    /// those of the first sample lowest.
    TenPacked,
    /// 0…4095, as CSI-2's RAW12: two samples in three bytes, of which the third has the four low bits of each.
    TwelvePacked,
    /// 0…1023, bit after bit without gap, the highest first: V4L2's `Y10BPACK`.
    TenBits,
}

impl Depth {
    /// Bytes of a row of so many samples.
    pub(super) fn row_bytes(self, samples: usize) -> usize {
        match self {
            Self::Eight => samples,
            Self::Ten | Self::Twelve => 2 * samples,
            Self::TenPacked => 5 * samples.div_ceil(4),
            Self::TwelvePacked => 3 * samples.div_ceil(2),
            Self::TenBits => (10 * samples).div_ceil(8),
        }
    }

    /// The largest sample; the least is 0.
    pub fn largest(self) -> u32 {
        match self {
            Self::Eight => 255,
            Self::Ten | Self::TenPacked | Self::TenBits => 1023,
            Self::Twelve | Self::TwelvePacked => 4095,
        }
    }

    /// The sample at an index of a row; what lies above the largest counts as that.
    pub(super) fn sample(self, row: &[u8], index: usize) -> u32 {
        let two = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]));
        match self {
            Self::Eight => u32::from(row[index]),
            Self::Ten | Self::Twelve => two(row[2 * index], row[2 * index + 1]).min(self.largest()),
            Self::TenPacked => {
                let (first, within) = (5 * (index / 4), index % 4);
                let low = row[first + 4] >> (2 * within);
                u32::from(row[first + within]) << 2 | u32::from(low & 3)
            }
            Self::TwelvePacked => {
                let (first, within) = (3 * (index / 2), index % 2);
                let low = row[first + 2] >> (4 * within);
                u32::from(row[first + within]) << 4 | u32::from(low & 15)
            }
            Self::TenBits => {
                let (first, within) = (10 * index / 8, 10 * index % 8);
                two(row[first + 1], row[first]) >> (6 - within) & 1023
            }
        }
    }

    /// The mean of samples, given as their sum and how many there are, as a grey level.
    pub(super) fn level(self, sum: u32, samples: u32) -> u8 {
        let whole = samples * self.largest();
        ((sum * 255 + whole / 2) / whole) as u8
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub const ALL: [Depth; 6] = [
        Depth::Eight,
        Depth::Ten,
        Depth::Twelve,
        Depth::TenPacked,
        Depth::TwelvePacked,
        Depth::TenBits,
    ];

    /// Bits of a row, by what is written of each format: where each bit of each sample goes, one by one.
    pub fn write_row(depth: Depth, samples: &[u32]) -> Vec<u8> {
        let mut row = vec![0_u8; depth.row_bytes(samples.len())];
        let mut put = |byte: usize, bit: u32, set: bool| row[byte] |= u8::from(set) << bit;
        for (i, sample) in samples.iter().enumerate() {
            let is_set = |bit: u32| sample >> bit & 1 == 1;
            match depth {
                Depth::Eight => (0..8).for_each(|bit| put(i, bit, is_set(bit))),
                Depth::Ten | Depth::Twelve => {
                    (0..16).for_each(|bit| put(2 * i + bit as usize / 8, bit % 8, is_set(bit)));
                }
                Depth::TenPacked => {
                    let group = i / 4 * 5;
                    (2..10).for_each(|bit| put(group + i % 4, bit - 2, is_set(bit)));
                    (0..2).for_each(|bit| put(group + 4, bit + 2 * (i as u32 % 4), is_set(bit)));
                }
                Depth::TwelvePacked => {
                    let group = i / 2 * 3;
                    (4..12).for_each(|bit| put(group + i % 2, bit - 4, is_set(bit)));
                    (0..4).for_each(|bit| put(group + 2, bit + 4 * (i as u32 % 2), is_set(bit)));
                }
                Depth::TenBits => {
                    for bit in 0..10 {
                        let place = 10 * i + (9 - bit as usize);
                        put(place / 8, 7 - (place % 8) as u32, is_set(bit));
                    }
                }
            }
        }
        row
    }

    proptest! {
        #[test]
        fn samples_are_read_as_they_were_written(
            depth in proptest::sample::select(ALL.to_vec()),
            shares in proptest::collection::vec(0.0..=1.0_f64, 1..40),
        ) {
            let samples: Vec<u32> =
                shares.iter().map(|v| (v * f64::from(depth.largest())).round() as u32).collect();
            let row = write_row(depth, &samples);
            let read: Vec<u32> = (0..samples.len()).map(|i| depth.sample(&row, i)).collect();
            prop_assert_eq!(read, samples);
        }
    }
}
