//! Bundles that cannot be used are refused with words that name what is wrong.
#![allow(missing_docs)]

mod common;

use std::fs;
use std::path::Path;

use common::{
    colour, copy_of_tiny, edit, embedding, replace_ensemble, replace_gallery, tiny,
    tiny_with_gallery,
};
use proptest::prelude::*;
use recognition::bundle::{
    Bundle, BundleError, DecisionRule, Gallery, GalleryError, Manifest, Role,
};
use recognition::inference::{
    self, Engine, EngineChoice, EngineConfig, InferenceError, Network, SelfTestError,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn builtin() -> Engine {
    Engine::start(&EngineConfig {
        choice: EngineChoice::Builtin,
        ..EngineConfig::default()
    })
    .unwrap()
}

/// The error of a bundle with one value changed, or added to an object.
fn refused(pointer: &str, value: Value) -> String {
    refused_in(copy_of_tiny(), pointer, value)
}

fn refused_in(folder: tempfile::TempDir, pointer: &str, value: Value) -> String {
    edit(folder.path(), |m| match m.pointer_mut(pointer) {
        Some(old) => *old = value,
        None => {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            m.pointer_mut(parent).unwrap()[key] = value;
        }
    });
    let error = Bundle::open(folder.path()).unwrap_err();
    error.to_string()
}

#[test]
fn the_toy_bundle_opens_and_passes_its_self_tests() {
    let bundle = Bundle::open(tiny()).unwrap();
    let outcomes = inference::run_self_tests(&builtin(), &bundle).unwrap();
    assert_eq!(outcomes.len(), bundle.manifest().self_test.len());
    for outcome in outcomes {
        assert!(outcome.passed(), "{outcome:?}");
    }
}

#[test]
fn a_batch_of_any_size_gives_what_each_image_gives_alone() {
    let bundle = Bundle::open(tiny()).unwrap();
    for role in [Role::Finder, Role::Aligner, Role::Ensemble] {
        let mut network = Network::load(&builtin(), &bundle, role).unwrap();
        let each = network.input_len();
        let values: Vec<f32> = (0..5 * each).map(|i| (i as f32 * 0.37).sin()).collect();
        let alone: Vec<_> = values
            .chunks(each)
            .map(|image| network.run(1, image).unwrap().data)
            .collect();
        assert_ne!(alone[0], alone[1], "the images differ");
        for batch in [2, 5, 1, 3] {
            let together = network.run(batch, &values[..batch * each]).unwrap();
            assert_eq!(together.images().count(), batch);
            for (image, alone) in together.images().zip(&alone) {
                let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
                assert!(image.iter().zip(alone).all(near), "{role} of {batch}");
            }
        }
    }
}

#[test]
fn a_self_test_with_other_numbers_does_not_pass() {
    let folder = copy_of_tiny();
    let path = folder.path().join("self_test/ensemble.output.f32");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..4].copy_from_slice(&1e6_f32.to_le_bytes());
    fs::write(path, bytes).unwrap();
    let bundle = Bundle::open(folder.path()).unwrap();
    let outcomes = inference::run_self_tests(&builtin(), &bundle).unwrap();
    let passed: Vec<_> = outcomes
        .iter()
        .map(|o| (o.role.name(), o.passed()))
        .collect();
    assert_eq!(passed, [("aligner", true), ("ensemble", false)]);
}

#[test]
fn self_test_files_with_hashes_are_checked_against_them() {
    for file in ["input", "output"] {
        let folder = copy_of_tiny();
        edit(folder.path(), |m| {
            for test in m["self_test"].as_array_mut().unwrap() {
                for file in ["input", "output"] {
                    let path = folder.path().join(test[file].as_str().unwrap());
                    let sha256 = hex::encode(Sha256::digest(fs::read(path).unwrap()));
                    test[format!("{file}_sha256")] = sha256.into();
                }
            }
        });
        Bundle::open(folder.path()).unwrap();
        let path = folder.path().join(format!("self_test/ensemble.{file}.f32"));
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = Bundle::open(folder.path()).unwrap_err();
        assert!(matches!(error, BundleError::Hash { .. }), "{error}");
        assert!(error.to_string().contains(&format!("ensemble.{file}.f32")));
    }
}

/// What a later program's bundle has and this one does not know is no reason to name a field.
#[test]
fn a_bundle_for_a_later_program_says_which() {
    let folder = copy_of_tiny();
    edit(folder.path(), |m| {
        m["minimum_program_version"] = "99.1.0".into();
        m["decision"]["moon_phase"] = 0.5.into();
    });
    let error = Bundle::open(folder.path()).unwrap_err();
    assert!(matches!(error, BundleError::Program { .. }), "{error}");
    assert!(error.to_string().contains("99.1.0"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let folder = copy_of_tiny();
    fs::remove_file(folder.path().join("aligner.onnx")).unwrap();
    let error = Bundle::open(folder.path()).unwrap_err();
    assert!(matches!(error, BundleError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("aligner.onnx"));
}

#[test]
fn a_changed_file_is_named_with_both_hashes() {
    let folder = copy_of_tiny();
    let path = folder.path().join("finder.onnx");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
    let error = Bundle::open(folder.path()).unwrap_err();
    assert!(matches!(error, BundleError::Hash { .. }), "{error}");
    assert!(error.to_string().contains("finder.onnx"));
}

#[test]
fn a_folder_that_is_no_bundle_and_a_folder_that_is_not() {
    let empty = tempfile::tempdir().unwrap();
    let error = Bundle::open(empty.path()).unwrap_err();
    assert!(matches!(error, BundleError::NoManifest { .. }), "{error}");
    let error = Bundle::open(empty.path().join("nowhere")).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn values_that_cannot_be_used_are_named() {
    let long = "0".repeat(64);
    for (pointer, value, named) in [
        ("/format_version", json!(2), "format version 2"),
        ("/minimum_program_version", json!("99.0.0"), "99.0.0"),
        ("/catalogue/individuals", json!([]), "catalogue.individuals"),
        ("/catalogue/individuals/1", json!("ash"), "individuals[1]"),
        ("/catalogue/individuals/2", json!(" "), "individuals[2]"),
        (
            "/catalogue/individuals/2",
            json!("unknown"),
            "individuals[2]",
        ),
        (
            "/finder/network/file",
            json!("../finder.onnx"),
            "finder.network.file",
        ),
        (
            "/finder/network/file",
            json!("/finder.onnx"),
            "finder.network.file",
        ),
        ("/finder/network/file", json!(""), "finder.network.file"),
        ("/finder/network/sha256", json!("A".repeat(64)), "sha256"),
        ("/finder/network/sha256", json!(long), "SHA-256"),
        ("/finder/stride", json!(0), "finder.stride"),
        ("/finder/stride", json!(7), "finder.stride"),
        ("/finder/threshold", json!(1.5), "finder.threshold"),
        (
            "/finder/closer_look",
            json!({"candidate_threshold": -0.1, "head_length_pixels": 50.0}),
            "finder.closer_look.candidate_threshold",
        ),
        (
            "/finder/closer_look",
            json!({"candidate_threshold": 0.1, "head_length_pixels": 0.0}),
            "finder.closer_look.head_length_pixels",
        ),
        (
            "/finder/closer_look",
            json!({"candidate_threshold": 0.1, "head_length_pixels": 50.0, "further_head_lengths_pixels": [35.0, -1.0]}),
            "finder.closer_look.further_head_lengths_pixels",
        ),
        (
            "/finder/closer_look",
            json!({"candidate_threshold": 0.1, "head_length_pixels": 50.0, "views": 5}),
            "finder.closer_look.views",
        ),
        ("/finder/maximum_heads", json!(0), "maximum_heads"),
        ("/finder", Value::Null, "finder"),
        (
            "/aligner/network/input/width",
            json!(0),
            "aligner.network.input.width",
        ),
        ("/aligner/network/input/std/1", json!(0.0), "std"),
        (
            "/aligner/field_head_lengths",
            json!(-1.0),
            "field_head_lengths",
        ),
        ("/aligner/rounds", json!(0), "aligner.rounds"),
        ("/aligner/views", json!(0), "aligner.views"),
        ("/ensemble/views", json!(0), "ensemble.views"),
        ("/ensemble/head_crop/bonnet_x", json!(0.3), "bonnet_x"),
        ("/ensemble/head_crop/aspect", json!(0.0), "aspect"),
        ("/decision/temperature", json!(0.0), "temperature"),
        (
            "/decision",
            json!({
                "temperature": 1.0, "power": 0.0, "unknown": {"slope": -1.0, "intercept": 0.0},
                "unknown_threshold": 0.5, "identified_threshold": 0.5,
            }),
            "decision.power",
        ),
        (
            "/decision/unknown_threshold",
            json!(-0.1),
            "unknown_threshold",
        ),
        ("/self_test/0/role", json!("painter"), "self_test[0].role"),
        (
            "/self_test/0/tolerance",
            json!(-1.0),
            "self_test[0].tolerance",
        ),
        (
            "/self_test/0/input",
            json!("self_test/aligner.output.f32"),
            "self_test[0].input",
        ),
    ] {
        let error = refused(pointer, value);
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

#[test]
fn values_of_a_gallery_that_cannot_be_used_are_named() {
    for (pointer, value, named) in [
        ("/ensemble/embedding", Value::Null, "ensemble.embedding"),
        (
            "/ensemble/embedding/length",
            json!(0),
            "ensemble.embedding.length",
        ),
        ("/ensemble/embedding/length", json!(4), "F16 [N, 4]"),
        (
            "/ensemble/embedding/output",
            json!("logits"),
            "ensemble.embedding.output",
        ),
        (
            "/gallery/file",
            json!("../gallery.safetensors"),
            "gallery.file",
        ),
        ("/gallery/sha256", json!("0"), "gallery.sha256"),
        (
            "/gallery/neighbours/slope",
            json!(0.0),
            "gallery.neighbours.slope",
        ),
        (
            "/gallery/neighbours/share",
            json!(1.5),
            "gallery.neighbours.share",
        ),
        (
            "/gallery/enrolled",
            json!(["Sunny", "ash"]),
            "gallery.enrolled[1]",
        ),
        (
            "/gallery/enrolled",
            json!(["unknown"]),
            "gallery.enrolled[0]",
        ),
        ("/gallery/enrolled", json!(["Sunny"]), "Sunny is enrolled"),
        (
            "/self_test/0/embedding",
            json!(true),
            "self_test[0].embedding",
        ),
        ("/self_test/1/tolerence", json!(1.0), "tolerence"),
    ] {
        let error = refused_in(tiny_with_gallery(), pointer, value);
        assert!(error.contains(named), "{pointer}: {error}");
    }
}

/// Tools take networks by what is said of them.
#[test]
fn networks_that_are_not_those_of_the_bundle_are_named() {
    let network = |role: &str, name: &str| json!({"role": role, "name": name, "recipe": "r", "recipe_sha256": "0".repeat(64)});
    let good = [
        network("finder", "f"),
        network("aligner", "a"),
        network("ensemble", "c"),
        network("ensemble", "c-seed-2"),
    ];
    let folder = copy_of_tiny();
    edit(folder.path(), |m| m["provenance"]["networks"] = json!(good));
    let stated = Bundle::open(folder.path()).unwrap();
    assert_eq!(stated.manifest().provenance.networks.len(), 4);
    let change = |at: usize, key: &str, value: Value| {
        let mut networks = json!(good);
        networks[at][key] = value;
        networks
    };
    for (networks, named) in [
        (change(3, "name", json!("c")), "provenance.networks[3].name"),
        (change(0, "name", json!(" ")), "provenance.networks[0].name"),
        (
            change(2, "recipe_sha256", json!("00")),
            "provenance.networks[2].recipe_sha256",
        ),
        (
            change(2, "weights_sha256", json!("00")),
            "provenance.networks[2].weights_sha256",
        ),
        (change(1, "role", json!("finder")), "2 of role finder"),
        (json!(good[..2]), "0 of role ensemble"),
    ] {
        let error = refused("/provenance/networks", networks);
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn features_of_unknown_that_cannot_be_used_are_named() {
    let model = |features: Value| json!({"score": "features", "slope": -1.0, "intercept": 0.0, "features": features});
    let feature = |name: &str, deviation: f64| json!({"feature": name, "mean": 0.0, "deviation": deviation, "weight": 1.0});
    let pointer = "/decision/unknown";
    for (value, named) in [
        (model(json!([])), "decision.unknown.features"),
        (model(json!([feature("charm", 1.0)])), "charm"),
        (
            model(json!([feature("similarity", 0.0)])),
            "features[0].deviation",
        ),
        (
            model(json!([
                feature("similarity", 1.0),
                feature("similarity", 2.0)
            ])),
            "features[1].feature",
        ),
        (
            json!({"slope": -1.0, "intercept": 0.0, "features": [feature("similarity", 1.0)]}),
            "decision.unknown.features",
        ),
    ] {
        let error = refused_in(tiny_with_gallery(), pointer, value.clone());
        assert!(error.contains(named), "{value}: {error}");
    }
    // There is no gallery to compare with.
    let error = refused(pointer, model(json!([feature("mean_distance", 1.0)])));
    assert!(error.contains("features[0].feature"), "{error}");
    let aims = |precision: f64| {
        json!({
            "precision": precision, "strangers": 0.1, "stranger_share": 0.2, "met": true,
            "reached": {"precision": 0.96, "known_identified": 0.6, "strangers_identified": 0.05,
                "known_photographs": 160, "stranger_photographs": 197, "stranger_individuals": 20},
        })
    };
    let error = refused("/decision/aims", aims(1.5));
    assert!(error.contains("decision.aims.precision"), "{error}");
}

/// A decision of before there were features and aims is read, compares the candidate's probability as it did, and says no
/// more when it is written again.
#[test]
fn a_decision_without_features_and_aims_stays_as_it_is() {
    let before = json!({
        "temperature": 1.5, "unknown": {"score": "concentration", "slope": -0.5, "intercept": 0.25},
        "unknown_threshold": 0.75, "identified_threshold": 0.375,
    });
    let decision: DecisionRule = serde_json::from_value(before.clone()).unwrap();
    assert_eq!(decision.confidence.of(0.5, 0.7), 0.5);
    assert_eq!(serde_json::to_value(&decision).unwrap(), before);
}

#[test]
fn a_gallery_that_was_changed_or_is_none_is_refused() {
    let folder = tiny_with_gallery();
    let path = folder.path().join("gallery.safetensors");
    let bytes = fs::read(&path).unwrap();
    let bundle = Bundle::open(folder.path()).unwrap();
    assert_eq!(bundle.gallery().unwrap().unwrap().len(), 3);

    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&path, &changed).unwrap();
    let error = Bundle::open(folder.path()).unwrap_err();
    assert!(matches!(error, BundleError::Hash { .. }), "{error}");
    assert!(error.to_string().contains("gallery.safetensors"));
    // A bundle that was opened before does not use it either.
    assert!(matches!(bundle.gallery(), Err(BundleError::Hash { .. })));

    replace_gallery(folder.path(), &bytes[..bytes.len() - 1]);
    let error = Bundle::open(folder.path()).unwrap_err();
    assert!(matches!(error, BundleError::Gallery { .. }), "{error}");

    let mut gallery = Gallery::new(3);
    gallery.push(&embedding(colour("ash")), 3).unwrap();
    replace_gallery(folder.path(), &gallery.write());
    let error = Bundle::open(folder.path()).unwrap_err();
    let BundleError::Gallery { source, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        matches!(source, GalleryError::Individual { individual: 3, .. }),
        "{error}"
    );

    fs::remove_file(path).unwrap();
    let error = Bundle::open(folder.path()).unwrap_err();
    assert!(matches!(error, BundleError::Missing { .. }), "{error}");
}

/// What stood in a manifest before there were galleries stands there still, and nothing more.
#[test]
fn manifests_without_a_gallery_are_what_they_were() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for folder in [models.join("virtual-survey"), tiny()] {
        let text = fs::read(folder.join("manifest.json")).unwrap();
        let bundle = Bundle::open(&folder).unwrap();
        let manifest = bundle.manifest();
        assert_eq!(
            (&manifest.gallery, &manifest.ensemble.embedding),
            (&None, &None)
        );
        assert!(bundle.gallery().unwrap().is_none());
        let individuals: Vec<&String> = manifest.individuals().collect();
        assert!(individuals.into_iter().eq(&manifest.catalogue.individuals));
        let read: Value = serde_json::from_slice(&text).unwrap();
        let written: Value =
            serde_json::from_slice(&serde_json::to_vec(manifest).unwrap()).unwrap();
        assert_eq!(written, read);
    }
}

/// The released bundle names by photographs too: by some of every whale that it knows.
#[test]
fn the_released_gallery_has_photographs_of_every_whale() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let bundle = Bundle::open(models.join("right-whales")).unwrap();
    let gallery = bundle.gallery().unwrap().expect("a gallery");
    let individuals = bundle.manifest().catalogue.individuals.len();
    let photographs = gallery.photographs(individuals);
    assert!(photographs.iter().all(|count| (1..=16).contains(count)));
}

/// The embedding is tested where there is one, and its self-test tells.
#[test]
fn the_embedding_has_a_self_test_of_its_own() {
    let folder = tiny_with_gallery();
    let engine = builtin();
    let mut network = Network::load(
        &engine,
        &Bundle::open(folder.path()).unwrap(),
        Role::Ensemble,
    )
    .unwrap();
    let input = fs::read(folder.path().join("self_test/ensemble.input.f32")).unwrap();
    let (words, _) = input.as_chunks::<4>();
    let input: Vec<f32> = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
    let (logits, embedding) = network.run_with_embedding(1, &input).unwrap();
    assert_eq!(network.run(1, &input).unwrap(), logits);
    let embedding = embedding.unwrap();
    assert_eq!(embedding.shape, [1, 3]);
    let length: f32 = embedding.data.iter().map(|v| v * v).sum();
    assert!((length - 1.0).abs() < 1e-5);

    let path = folder.path().join("self_test/ensemble.embedding.f32");
    for (change, expected) in [(0.0, [true, true, true]), (0.1, [true, true, false])] {
        let values = embedding.data.iter().map(|v| v + change);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        fs::write(&path, bytes).unwrap();
        edit(folder.path(), |m| {
            let tests = m["self_test"].as_array_mut().unwrap();
            tests.truncate(2);
            let mut test = tests[1].clone();
            test["output"] = "self_test/ensemble.embedding.f32".into();
            test["embedding"] = true.into();
            tests.push(test);
        });
        let bundle = Bundle::open(folder.path()).unwrap();
        let outcomes = inference::run_self_tests(&engine, &bundle).unwrap();
        let passed: Vec<bool> = outcomes.iter().map(|o| o.passed()).collect();
        assert_eq!(passed, expected);
        assert!(outcomes[2].embedding && !outcomes[1].embedding);
    }
}

#[test]
fn an_embedding_that_the_network_lacks_is_named() {
    let folder = tiny_with_gallery();
    replace_ensemble(folder.path(), "tiny/ensemble.onnx");
    let error = self_test_error(folder.path()).to_string();
    assert!(error.contains("embedding"), "{error}");
}

#[test]
fn a_link_out_of_the_bundle_is_refused() {
    let folder = copy_of_tiny();
    let path = folder.path().join("finder.onnx");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(tiny().join("finder.onnx"), path).unwrap();
    let error = Bundle::open(folder.path()).unwrap_err();
    assert!(matches!(error, BundleError::Outside { .. }), "{error}");
}

fn self_test_error(folder: &Path) -> SelfTestError {
    let bundle = Bundle::open(folder).unwrap();
    inference::run_self_tests(&builtin(), &bundle).unwrap_err()
}

#[test]
fn a_wrong_input_size_is_named() {
    let folder = copy_of_tiny();
    edit(folder.path(), |m| {
        m["ensemble"]["network"]["input"]["width"] = 48.into();
        m["self_test"] = json!([]);
    });
    let error = self_test_error(folder.path());
    let SelfTestError::Inference(InferenceError::Contract {
        found, expected, ..
    }) = &error
    else {
        panic!("{error}");
    };
    assert!(
        found.ends_with("3 × 32 × 32") && expected.ends_with("3 × 32 × 48"),
        "{error}"
    );
}

#[test]
fn wrong_names_and_a_wrong_number_of_individuals_are_named() {
    for (change, named) in [
        ("/ensemble/network/input/name", "picture"),
        ("/ensemble/network/output", "names"),
    ] {
        let folder = copy_of_tiny();
        edit(folder.path(), |m| {
            *m.pointer_mut(change).unwrap() = named.into()
        });
        let error = self_test_error(folder.path()).to_string();
        assert!(
            error.contains(named) && error.contains("ensemble"),
            "{error}"
        );
    }
    let folder = copy_of_tiny();
    edit(folder.path(), |m| {
        m["catalogue"]["individuals"] = json!(["ash", "indigo"]);
        m["self_test"] = json!([]);
    });
    let error = self_test_error(folder.path()).to_string();
    assert!(error.contains('3') && error.contains("N × 2"), "{error}");
}

#[test]
fn a_network_that_gives_no_number_is_named() {
    let folder = copy_of_tiny();
    replace_ensemble(folder.path(), "nan.onnx");
    let error = self_test_error(folder.path());
    assert!(
        matches!(
            error,
            SelfTestError::Inference(InferenceError::NotFinite { .. })
        ),
        "{error}"
    );
    assert!(error.to_string().contains("ensemble"), "{error}");
}

#[test]
fn a_file_that_is_no_network_is_named() {
    let folder = copy_of_tiny();
    fs::write(folder.path().join("ensemble.onnx"), b"\xffnot a network").unwrap();
    edit(folder.path(), |m| {
        let hash = hex::encode(Sha256::digest(b"\xffnot a network"));
        m["ensemble"]["network"]["sha256"] = hash.into();
    });
    let error = self_test_error(folder.path()).to_string();
    assert!(error.contains("ensemble.onnx"), "{error}");
}

/// Any JSON, of any shape, in the place of a value.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(json!(1e300)),
        ".{0,12}".prop_map(Value::from),
        Just(json!("..")),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z_]{1,8}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a value, as JSON pointers.
fn places(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                places(inner, format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                places(inner, format!("{at}/{i}"), found);
            }
        }
        _ => {}
    }
    found.push(at);
}

proptest! {
    /// Whatever stands in a manifest, it is read or refused in words; what is read keeps the rules on
    /// which the rest of the program builds.
    #[test]
    fn no_manifest_makes_the_check_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4),
        with_gallery in any::<bool>(),
    ) {
        let path = tiny().join("manifest.json");
        let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if with_gallery {
            manifest["ensemble"]["embedding"] = json!({"output": "embedding", "length": 3});
            manifest["gallery"] = json!({
                "file": "gallery.safetensors",
                "sha256": "0".repeat(64),
                "neighbours": {"slope": 9.0, "intercept": -1.0, "share": 0.3},
                "enrolled": ["Sunny", "Cloudy"],
            });
            manifest["provenance"]["enrollments"] = json!([{
                "individual": "Sunny",
                "enrolled": "2026-01-01T00:00:00Z",
                "photographs": [{"file": "a.jpg", "sha256": "0".repeat(64)}],
            }]);
            prop_assert!(Bundle::read_manifest(&path, &serde_json::to_vec(&manifest).unwrap()).is_ok());
        }
        for (which, value) in changes {
            let mut found = Vec::new();
            places(&manifest, String::new(), &mut found);
            *manifest.pointer_mut(which.get(&found[..]).as_str()).unwrap() = value;
        }
        let bytes = serde_json::to_vec(&manifest).unwrap();
        match Bundle::read_manifest(&path, &bytes) {
            Ok(manifest) => {
                prop_assert!(!manifest.catalogue.individuals.is_empty());
                prop_assert!(manifest.decision.temperature > 0.0);
                if let Some(gallery) = &manifest.gallery {
                    prop_assert!(manifest.embedding_shape().is_some());
                    prop_assert!(gallery.neighbours.slope > 0.0);
                    let mut individuals: Vec<_> = manifest.individuals().collect();
                    let count = individuals.len();
                    individuals.sort();
                    individuals.dedup();
                    prop_assert_eq!(individuals.len(), count);
                }
            }
            Err(error) => prop_assert!(error.to_string().contains("manifest.json")),
        }
    }

    #[test]
    fn no_bytes_make_the_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Bundle::read_manifest(Path::new("manifest.json"), &bytes).is_err());
    }
}

/// To the last bit of every number.
#[test]
fn a_manifest_that_is_written_is_read_as_it_was() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    for name in ["right-whales", "virtual-survey"] {
        let text = fs::read(models.join(name).join("manifest.json")).unwrap();
        let mut manifest: Manifest = serde_json::from_slice(&text).unwrap();
        for step in 0u32..1000 {
            manifest.ensemble.head_crop.aspect = 2.0 + f64::from(step) / 7.0;
            let written = serde_json::to_vec(&manifest).unwrap();
            let read: Manifest = serde_json::from_slice(&written).unwrap();
            assert_eq!(read, manifest);
        }
    }
}
