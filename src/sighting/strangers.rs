//! Animals that the bundle does not know, numbered in the order in which a flight meets them.

use std::collections::BTreeSet;

use recognition::identify::Appearance;
use serde::{Deserialize, Serialize};

/// By so many nats looks must speak for an animal being one that was seen before in the flight. It is more likely a new
/// one, and to take two for one loses an animal: of pairs of two animals fewer than 1 in 200 are so much alike.
const SEEN_BEFORE: f64 = 3.0;

/// Of so many animals that were seen last the looks are kept.
const REMEMBERED: usize = 100;

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Strangers {
    met: u32,
    /// By when they were left behind, the last one last.
    animals: Vec<Stranger>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stranger {
    number: u32,
    appearance: Appearance,
}

impl Strangers {
    /// The number of an animal: of the most like one that was left behind, or else a new one. `in_view` cannot be left
    /// behind.
    pub fn number(&mut self, appearance: Option<&Appearance>, in_view: &BTreeSet<u32>) -> u32 {
        let candidates = self.animals.iter().filter_map(|animal| {
            let appearance = appearance?;
            let seen_before = !in_view.contains(&animal.number)
                && animal.appearance.same_animal(appearance) >= SEEN_BEFORE;
            seen_before.then_some((animal.appearance.similarity(appearance)?, animal.number))
        });
        let likest = candidates.max_by(|a, b| a.0.total_cmp(&b.0));
        likest.map_or_else(
            || {
                self.met += 1;
                self.met
            },
            |(_, number)| number,
        )
    }

    /// An animal is left behind, and may be met again.
    pub fn left(&mut self, number: u32, appearance: Option<&Appearance>) {
        let Some(appearance) = appearance else {
            return;
        };
        let known = self.animals.iter().position(|a| a.number == number);
        let mut animal = known.map_or_else(
            || Stranger {
                number,
                appearance: appearance.clone(),
            },
            |index| self.animals.remove(index),
        );
        if known.is_some() {
            animal.appearance.add(appearance);
        }
        self.animals.push(animal);
        if self.animals.len() > REMEMBERED {
            self.animals.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use recognition::identify::AppearanceKind;

    use super::*;

    fn looks(vector: [f32; 3]) -> Appearance {
        Appearance::new(AppearanceKind::Embedding, &vector).unwrap()
    }

    #[test]
    fn an_animal_that_is_seen_again_has_its_number_and_one_in_view_is_not_met_again() {
        let mut strangers = Strangers::default();
        let nobody = BTreeSet::new();
        let (a, b) = (looks([1.0, 0.0, 0.1]), looks([0.0, 1.0, 0.0]));
        assert_eq!(strangers.number(Some(&a), &nobody), 1);
        // It is still in view: another one that looks like it is another one.
        assert_eq!(strangers.number(Some(&a), &BTreeSet::from([1])), 2);
        strangers.left(1, Some(&a));
        strangers.left(2, Some(&b));
        assert_eq!(strangers.number(Some(&looks([1.0, 0.1, 0.0])), &nobody), 1);
        assert_eq!(strangers.number(Some(&looks([0.1, 1.0, 0.0])), &nobody), 2);
        assert_eq!(strangers.number(Some(&a), &BTreeSet::from([1])), 3);
        // Without looks nobody is recognised.
        assert_eq!(strangers.number(None, &nobody), 4);
    }

    #[test]
    fn a_long_flight_forgets_the_oldest_looks_and_reuses_no_number() {
        let mut strangers = Strangers::default();
        for met in 1..=300 {
            let number = strangers.number(None, &BTreeSet::new());
            assert_eq!(number, met);
            strangers.left(number, Some(&looks([1.0, met as f32, 0.0])));
        }
        assert_eq!(strangers.animals.len(), REMEMBERED);
        assert_eq!(strangers.animals[0].number, 201);
    }
}
