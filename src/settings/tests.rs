use std::collections::BTreeSet;
use std::path::Path;

use super::*;

fn layers(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Layers, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("callosity.toml");
    std::fs::create_dir(folder.path().join("callosity.toml.d")).unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let variables = variables.iter();
    let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Layers::new().with_file(&main)?.with_environment(variables)
}

fn loaded(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Loaded {
    layers(files, variables).unwrap().load().unwrap()
}

fn refused(text: &str) -> String {
    let made = layers(&[("callosity.toml", text)], &[]);
    let error = match made.and_then(Layers::load) {
        Err(error) => error,
        Ok(loaded) => {
            let flown = loaded.flight(|| -> Result<NoRecogniser, SettingsError> { unreachable!() });
            flown.err().unwrap_or_else(|| panic!("{text} is taken"))
        }
    };
    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        said += &format!(": {cause}");
        source = cause.source();
    }
    said
}

struct NoRecogniser;

impl crate::service::Recogniser for NoRecogniser {
    fn about(&self) -> crate::service::About {
        unreachable!()
    }

    fn recognise(
        &mut self,
        _: &recognition::pixels::Image,
    ) -> anyhow::Result<crate::service::Recognised> {
        unreachable!()
    }

    fn identify(
        &self,
        _: &recognition::identify::Opinion,
    ) -> recognition::identify::Identification {
        unreachable!()
    }
}

/// The lines that begin with `#:`, as if they began without.
fn uncommented() -> String {
    TEMPLATE
        .lines()
        .map(|line| line.strip_prefix("#: ").unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_template_has_every_key_and_no_other() {
    fn below(value: &toml::Value, key: &str, keys: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) if key != "camera.NAME.controls" => {
                for (name, value) in table {
                    let name = if key == "camera" { "NAME" } else { name };
                    let key = if key.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{key}.{name}")
                    };
                    below(value, &key, keys);
                }
            }
            _ => {
                keys.insert(key.to_owned());
            }
        }
    }
    let table: toml::Table = toml::from_str(&uncommented()).unwrap();
    let mut in_template = BTreeSet::new();
    below(&toml::Value::Table(table), "", &mut in_template);
    let known: BTreeSet<String> = keys::all()
        .into_iter()
        .map(|key| key.trim_end_matches(".controls.NAME").to_owned())
        .map(|key| {
            if key == "camera.NAME" {
                "camera.NAME.controls".to_owned()
            } else {
                key
            }
        })
        .collect();
    assert_eq!(in_template, known);
}

#[test]
fn the_template_says_what_is_so_by_default() {
    let by_default = toml::Value::try_from(Settings::default()).unwrap();
    let uncommented: toml::Value = toml::from_str(&uncommented()).unwrap();
    for (table, keys) in by_default.as_table().unwrap() {
        // Only what has a default is compared; the rest are examples.
        match keys {
            toml::Value::Table(keys) => {
                for (key, value) in keys {
                    if (table.as_str(), key.as_str()) != ("broker", "url") {
                        let said = &uncommented[table.as_str()][key.as_str()];
                        let no_default = value.as_array().is_some_and(Vec::is_empty);
                        assert!(
                            said == value || no_default,
                            "{table}.{key}: {said}, not {value}"
                        );
                    }
                }
            }
            _ if table == "bundle" => {
                assert_eq!(uncommented[table.as_str()].as_str(), Some(INSTALLED_BUNDLE));
            }
            value if table != "platform" => assert_eq!(&uncommented[table.as_str()], value),
            _ => {}
        }
    }
}

#[test]
fn the_template_is_taken_as_it_is() {
    let loaded = loaded(&[("callosity.toml", TEMPLATE)], &[]);
    assert_eq!(loaded.settings.platform, "aircraft-1");
    assert_eq!(loaded.settings.camera.len(), 1);
    assert!(loaded.link().is_ok());
}

#[test]
fn later_ones_win_key_by_key() {
    let files = [
        (
            "callosity.toml",
            "platform = \"a\"\nlost_after_seconds = 3.0\n[broker]\nurl = \"mqtt://file\"\nkeep_alive_seconds = 20\n\
             [camera.left]\nsource = \"v4l2:SN1\"\nrate = 2.0\nmounting.focal_length_millimeters = 50.0\n",
        ),
        (
            "callosity.toml.d/10-link.toml",
            "[broker]\nurl = \"mqtt://first\"\nusername = \"first\"\n",
        ),
        (
            "callosity.toml.d/20-link.toml",
            "[broker]\nurl = \"mqtt://second\"\n[camera.left]\nmounting.roll_degrees = -30.0\n",
        ),
        ("callosity.toml.d/README", "no = settings"),
        ("callosity.toml.d/.hidden.toml", "no = settings"),
    ];
    let variables = [
        ("CALLOSITY__LOST_AFTER_SECONDS", "7"),
        ("CALLOSITY__CAMERA__LEFT__EXPOSURE", "5"),
        ("CALLOSITY__PLATFORM", "747"),
        ("CALLOSITY_LOG", "debug"),
    ];
    let mut layers = layers(&files, &variables).unwrap();
    layers
        .set_text("survey.observers", "[\"A\", \"B\"]", "argument --set")
        .unwrap();
    layers
        .set_text("camera.left.gain", "auto", "argument --set")
        .unwrap();
    let loaded = layers.load().unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.broker.url, "mqtt://second");
    assert_eq!(settings.broker.username.as_deref(), Some("first"));
    assert_eq!(settings.broker.keep_alive_seconds, 20);
    assert_eq!(settings.lost_after_seconds, 7.0);
    // What is text stays text though it looks like a number.
    assert_eq!(settings.platform, "747");
    assert_eq!(settings.survey.observers, ["A", "B"]);
    let left = &settings.camera["left"];
    assert_eq!(
        (left.rate, &left.exposure),
        (Some(2.0), &Some(SettingValue::Number(5)))
    );
    assert_eq!(left.gain, Some(SettingValue::Name("auto".into())));
    let mounting = left.mounting.unwrap();
    assert_eq!(
        (mounting.focal_length_millimeters, mounting.roll_degrees),
        (50.0, -30.0)
    );
    let origin = |key: &str| loaded.origin(key).unwrap_or_default().to_owned();
    assert!(
        origin("broker.url").ends_with("20-link.toml line 2"),
        "{}",
        origin("broker.url")
    );
    assert!(origin("broker.username").ends_with("10-link.toml line 3"));
    assert!(origin("broker.keep_alive_seconds").ends_with("callosity.toml line 5"));
    assert_eq!(
        origin("lost_after_seconds"),
        "variable CALLOSITY__LOST_AFTER_SECONDS"
    );
    assert_eq!(origin("stop_deadline_seconds"), "");
}

#[test]
fn what_was_set_in_flight_wins_until_it_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let load = || {
        let text = format!(
            "state = {:?}\n[camera.left]\nsource = \"v4l2:SN1\"\nexposure = 50\n",
            folder.path()
        );
        loaded(&[("callosity.toml", &text)], &[])
    };
    let setting = crate::camera::Setting::Number;
    let first = load();
    let in_flight = first.in_flight().unwrap();
    let set = in_flight
        .set("left", "exposure", Some(&setting(5)))
        .unwrap();
    assert_eq!(set, Some(setting(5)));
    let second = load();
    assert_eq!(
        second.settings.camera["left"].exposure,
        Some(SettingValue::Number(5))
    );
    assert!(
        second
            .origin("camera.left.exposure")
            .unwrap()
            .starts_with("set in flight")
    );
    // Given back, it is at once what the file says.
    let in_flight = second.in_flight().unwrap();
    assert_eq!(
        in_flight.set("left", "exposure", None).unwrap(),
        Some(setting(50))
    );
    assert_eq!(in_flight.set("left", "gain", None).unwrap(), None);
    assert_eq!(
        load().settings.camera["left"].exposure,
        Some(SettingValue::Number(50))
    );
}

#[test]
fn what_is_wrong_is_named_with_line_value_and_what_to_do() {
    let flies = "platform = \"a\"\nbroker.url = \"mqtt://x\"\nstate = \"/nowhere/at/all\"\n";
    let with = |more: &str| format!("{flies}{more}");
    let camera = |more: &str| with(&format!("[camera.left]\nsource = \"v4l2:SN1\"\n{more}"));
    for (text, said) in [
        (
            "platfrom = \"a\"".to_owned(),
            "line 1: there is no setting platfrom, perhaps platform is meant",
        ),
        (with("[broker]\n"), "duplicate key"),
        (
            "[broker]\nurl = \"mqtt://x\"\nkeepalive_seconds = 3".to_owned(),
            "line 3: there is no setting broker.keepalive_seconds, perhaps broker.keep_alive_seconds is meant",
        ),
        (
            camera("exposuer = 3"),
            "camera.left.exposuer, perhaps camera.left.exposure",
        ),
        (
            camera("mounting.focal_length = 3"),
            "perhaps camera.left.mounting.focal_length_millimeters",
        ),
        (
            "wholly_different = 1".to_owned(),
            "there is no setting wholly_different; `callosity settings` lists all",
        ),
        ("platform = 3".to_owned(), "expected a string"),
        (
            "platform = \"a".to_owned(),
            "callosity.toml is not as it should be",
        ),
        (
            with("lost_after_seconds = -1.0\n[camera.left]\nsource = \"v4l2:SN1\""),
            "is -1: it must be 0 to 3600",
        ),
        (
            String::new(),
            "camera.NAME.source is not set: write `camera.NAME.source = \"v4l2:PATH-OR-SERIAL\"`",
        ),
        (camera("").replace("mqtt://x", "http://x"), "broker.url ("),
        (camera("").replace("mqtt://x", ""), "broker.url is not set"),
        (camera("").replace("\"a\"", "\"a/b\""), "platform ("),
        (camera("size = \"big\""), "it is WIDTHxHEIGHT"),
        (camera("format = \"MJPEG\""), "it has four characters"),
        (camera("rate = 0"), "from 0.001 to 1000"),
        (camera("watch = \"poll\""), "only cameras folder: take it"),
        (camera("mask = [[[0.0, 0.0], [1.0, 1.0]]]"), "three corners"),
        (
            camera("mask = [[[0.0, 0.0], [640.0, 0.0], [640.0, 480.0]]]"),
            "shares of the frame",
        ),
        (
            camera("mounting.roll_degrees = 3.0"),
            "camera.left.mounting.focal_length_millimeters (by default) is 0: it must be 1 to 5000",
        ),
        (
            camera("[camera.right]\nsource = \"v4l2:by-id/SN1\""),
            "named twice",
        ),
        (
            camera("").replace("v4l2:SN1", "v4l2:/dev/video0"),
            "callosity cameras",
        ),
        (
            camera("").replace("v4l2:SN1", "usb:1"),
            "it is v4l2:PATH-OR-SERIAL",
        ),
        (
            camera("").replace("v4l2:SN1", "replay:/nowhere"),
            "cannot list the photographs in /nowhere",
        ),
        (
            camera("samples = \"raw\""),
            "it is linear, as a sensor measures light, or srgb",
        ),
        (
            camera("gains = [2.0, 1.0, 0.0]"),
            "each of red, green and blue is 0.1 to 16",
        ),
        (
            camera("").replace("v4l2:SN1", "folder:/tmp") + "black_level = 64\n",
            "only cameras v4l2: take it",
        ),
        (
            with("outbox.budget = \"1MB\"\n[camera.left]\nsource = \"v4l2:SN1\""),
            "it is a number with MB",
        ),
        (
            with("archive.budget = \"1GB\"\n[camera.left]\nsource = \"v4l2:SN1\""),
            "it needs archive.folder",
        ),
        (
            with("page.address = \"0.0.0.0:80\"\n[camera.left]\nsource = \"v4l2:SN1\""),
            "page.address (",
        ),
    ] {
        let refused = refused(&text);
        assert!(refused.contains(said), "{text}\n{refused}");
    }
}

#[test]
fn variables_and_arguments_name_settings_too() {
    let variable = layers(
        &[("callosity.toml", "")],
        &[("CALLOSITY__BROKER__ULR", "mqtt://x")],
    );
    let said = variable.err().unwrap().to_string();
    assert_eq!(
        said,
        "variable CALLOSITY__BROKER__ULR: there is no setting broker.ulr, perhaps broker.url is meant; `callosity settings` \
         lists all"
    );
    let mut layers = Layers::new();
    let wrong = layers.set_text("broker.keep_alive_seconds", "often", "argument --set");
    assert!(wrong.unwrap_err().to_string().contains("argument --set"));
    let missing = Layers::new()
        .with_file(Path::new("/nowhere.toml"))
        .err()
        .unwrap();
    assert!(
        missing
            .to_string()
            .contains("cannot read the settings /nowhere.toml")
    );
}

#[test]
fn a_camera_in_one_line_is_a_table() {
    let argument: CameraArgument =
        "v4l2:by-path/pci-0000:00:14.0-usb-0:2:1.0,name=left,format=Y10,size=1920x1080,rate=7.5,\
         exposure=5,gain=auto,control.power_line_frequency=50 Hz,mask=0:0/0.2:0/0:1,\
         samples=linear,black_level=64,gains=1.9:1:1.6"
            .parse()
            .unwrap();
    let mut layers = Layers::new();
    layers.add_cameras(vec![argument]).unwrap();
    let left = &layers.load().unwrap().settings.camera["left"];
    let expected = CameraSettings {
        source: "v4l2:by-path/pci-0000:00:14.0-usb-0:2:1.0".into(),
        format: Some("Y10".into()),
        size: Some("1920x1080".into()),
        rate: Some(7.5),
        exposure: Some(SettingValue::Number(5)),
        gain: Some(SettingValue::Name("auto".into())),
        controls: [(
            "power_line_frequency".into(),
            SettingValue::Name("50 Hz".into()),
        )]
        .into(),
        mask: vec![vec![[0.0, 0.0], [0.2, 0.0], [0.0, 1.0]]],
        samples: Some("linear".into()),
        black_level: Some(64),
        gains: Some([1.9, 1.0, 1.6]),
        ..CameraSettings::default()
    };
    assert_eq!(*left, expected);
}

#[test]
fn cameras_of_arguments_replace_those_of_files() {
    let files = [("callosity.toml", "[camera.left]\nsource = \"v4l2:SN1\"\n")];
    let mut layers = layers(&files, &[]).unwrap();
    let camera = |text: &str| text.parse::<CameraArgument>().unwrap();
    layers
        .add_cameras(vec![camera("v4l2:SN2"), camera("replay:/a,name=b,loop")])
        .unwrap();
    let settings = layers.load().unwrap().settings;
    assert_eq!(settings.camera.keys().collect::<Vec<_>>(), ["SN2", "b"]);
    assert!(settings.camera["b"].again_and_again);
    let twice =
        Layers::new().add_cameras(vec![camera("v4l2:SN1,name=a"), camera("v4l2:SN2,name=a")]);
    assert!(twice.unwrap_err().to_string().contains("a name of its own"));
    for (text, said) in [
        ("v4l2:SN1,rate=5,rate=6", "given twice"),
        ("/dev/video0", "v4l2:PATH-OR-SERIAL"),
        ("folder:/x,mask=0,0", "X:Y/X:Y/X:Y"),
        ("v4l2:SN1,gains=1:x:2", "RED:GREEN:BLUE"),
    ] {
        assert!(
            text.parse::<CameraArgument>().unwrap_err().contains(said),
            "{text}"
        );
    }
    let unknown = Layers::new().add_cameras(vec![camera("v4l2:SN1,zoom=3")]);
    assert!(unknown.unwrap_err().to_string().contains("camera.SN1.zoom"));
}
