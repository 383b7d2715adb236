use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{BundleError, FORMAT_VERSION, Gallery, GalleryError, MANIFEST_FILE, Manifest, Network};

/// A manifest larger than this is none; a catalogue of a hundred thousand individuals fits.
const LARGEST_MANIFEST: u64 = 16 << 20;

/// What a network in a bundle is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Finds heads in a frame.
    Finder,
    /// Places the landmarks of a found head.
    Aligner,
    /// Names a head crop.
    Ensemble,
}

impl Role {
    /// Every role, in the order in which a frame meets them.
    pub const ALL: [Self; 3] = [Self::Finder, Self::Aligner, Self::Ensemble];

    /// The role as the manifest writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Finder => "finder",
            Self::Aligner => "aligner",
            Self::Ensemble => "ensemble",
        }
    }

    /// The role that the manifest writes so.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Manifest {
    /// The network of a role, where the bundle has one.
    pub fn network(&self, role: Role) -> Option<&Network> {
        match role {
            Role::Finder => self.finder.as_ref().map(|finder| &finder.network),
            Role::Aligner => self.aligner.as_ref().map(|aligner| &aligner.network),
            Role::Ensemble => Some(&self.ensemble.network),
        }
    }

    /// Shape of what the network of a role gives for one image, without the batch.
    pub fn output_shape(&self, role: Role) -> Option<Vec<usize>> {
        match role {
            Role::Finder => self.finder.as_ref().map(|finder| {
                let cells = |pixels: u32| (pixels / finder.stride.max(1)) as usize;
                let input = &finder.network.input;
                vec![5, cells(input.height), cells(input.width)]
            }),
            Role::Aligner => self.aligner.as_ref().map(|_| vec![4]),
            Role::Ensemble => Some(vec![self.catalogue.individuals.len()]),
        }
    }

    /// Shape of one embedding, without the batch, where the ensemble gives one.
    pub fn embedding_shape(&self) -> Option<Vec<usize>> {
        let embedding = self.ensemble.embedding.as_ref()?;
        Some(vec![embedding.length])
    }

    /// Whom the bundle can name: the catalogue's individuals, then the enrolled ones.
    pub fn individuals(&self) -> impl Iterator<Item = &String> {
        let enrolled = self.gallery.iter().flat_map(|gallery| &gallery.enrolled);
        self.catalogue.individuals.iter().chain(enrolled)
    }
}

/// One self-test: what goes into a network and what must come out.
#[derive(Clone, Debug)]
pub struct SelfTestVectors {
    /// The network.
    pub role: Role,
    /// Whether the ensemble's embedding is tested, not its logits.
    pub embedding: bool,
    /// `1 × 3 × height × width` values.
    pub input: Vec<f32>,
    /// The values that must come out.
    pub output: Vec<f32>,
    /// Largest absolute difference allowed.
    pub tolerance: f32,
}

/// A bundle on disk whose manifest and files have passed every check that needs no network to run.
///
/// Networks are read anew, and their hashes compared again, when they are asked for: a bundle holds no
/// weights in memory, and what is run is what was checked.
#[derive(Clone, Debug)]
pub struct Bundle {
    directory: PathBuf,
    manifest: Manifest,
}

impl Bundle {
    /// Reads the bundle in `directory` and checks it: format and program version, every value of the
    /// manifest, and that every file named there is inside the bundle and has its SHA-256.
    ///
    /// # Errors
    /// A [`BundleError`] that names the file, the value and what to do.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, BundleError> {
        let directory = directory.into();
        let path = directory.join(MANIFEST_FILE);
        let bytes = match File::open(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(LARGEST_MANIFEST)
                    .read_to_end(&mut bytes)
                    .map_err(|source| BundleError::Read {
                        path: path.clone(),
                        source,
                    })?;
                bytes
            }
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(if directory.is_dir() {
                    BundleError::NoManifest { directory }
                } else {
                    BundleError::Read {
                        path: directory,
                        source,
                    }
                });
            }
            Err(source) => return Err(BundleError::Read { path, source }),
        };
        let manifest = Self::read_manifest(&path, &bytes)?;
        let bundle = Self {
            directory,
            manifest,
        };
        for role in Role::ALL {
            if bundle.manifest.network(role).is_some() {
                bundle.network_bytes(role)?;
            }
        }
        bundle.self_tests()?;
        bundle.gallery()?;
        Ok(bundle)
    }

    /// Reads and checks a manifest, without looking at any other file. `path` is only for the errors.
    ///
    /// # Errors
    /// A [`BundleError`] that names the value and what to do.
    pub fn read_manifest(path: &Path, bytes: &[u8]) -> Result<Manifest, BundleError> {
        let parse = |source| BundleError::Parse {
            path: path.to_owned(),
            source,
        };
        // These decide how the rest is read, so they are looked at before the rest: a bundle for a later program has
        // fields that this one does not know.
        #[derive(serde::Deserialize)]
        struct Header {
            format_version: u64,
            minimum_program_version: Option<String>,
        }
        let header: Header = serde_json::from_slice(bytes).map_err(parse)?;
        if header.format_version != u64::from(FORMAT_VERSION) {
            return Err(BundleError::Format {
                path: path.to_owned(),
                found: header.format_version,
            });
        }
        let version = |text: &str| semver::Version::parse(text).ok();
        if let Some(needed) = header.minimum_program_version.as_deref().and_then(version)
            && let Some(program) = version(env!("CARGO_PKG_VERSION"))
            && program < needed
        {
            return Err(BundleError::Program {
                path: path.to_owned(),
                needed,
                program,
            });
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(parse)?;
        manifest.check().map_err(|problem| BundleError::Manifest {
            path: path.to_owned(),
            problem,
        })?;
        Ok(manifest)
    }

    /// The bundle's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the bundle says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the network of a role lies.
    pub fn network_path(&self, role: Role) -> Option<PathBuf> {
        let network = self.manifest.network(role)?;
        Some(self.directory.join(&network.file))
    }

    /// The ONNX file of a role's network, checked against its hash; `None` where the bundle has none.
    ///
    /// # Errors
    /// The file cannot be read, leads out of the bundle or has another hash.
    pub fn network_bytes(&self, role: Role) -> Result<Option<Vec<u8>>, BundleError> {
        let Some(network) = self.manifest.network(role) else {
            return Ok(None);
        };
        let field = format!("{role}.network.file");
        let (_, bytes) = self.read_hashed(&network.file, &field, &network.sha256)?;
        Ok(Some(bytes))
    }

    /// The gallery, checked against its hash; `None` where the bundle has none.
    ///
    /// # Errors
    /// The file cannot be read, leads out of the bundle, has another hash, is no gallery of these
    /// individuals and this length of embeddings, or lacks an enrolled individual.
    pub fn gallery(&self) -> Result<Option<Gallery>, BundleError> {
        let (Some(declared), Some(embedding)) =
            (&self.manifest.gallery, &self.manifest.ensemble.embedding)
        else {
            return Ok(None);
        };
        let (path, bytes) = self.read_hashed(&declared.file, "gallery.file", &declared.sha256)?;
        let catalogue = self.manifest.catalogue.individuals.len();
        let individuals = catalogue + declared.enrolled.len();
        let read = Gallery::read(&bytes, embedding.length, individuals).and_then(|gallery| {
            let photographs = gallery.photographs(individuals);
            let enrolled = declared.enrolled.iter().zip(&photographs[catalogue..]);
            match enrolled.into_iter().find(|(_, count)| **count == 0) {
                Some((individual, _)) => Err(GalleryError::NoPhotograph {
                    individual: individual.clone(),
                }),
                None => Ok(gallery),
            }
        });
        match read {
            Ok(gallery) => Ok(Some(gallery)),
            Err(source) => Err(BundleError::Gallery { path, source }),
        }
    }

    /// The self-tests with their vectors, in the manifest's order.
    ///
    /// # Errors
    /// A file cannot be read, leads out of the bundle, has another hash or the wrong size.
    pub fn self_tests(&self) -> Result<Vec<SelfTestVectors>, BundleError> {
        let tests = self.manifest.self_test.iter().enumerate();
        tests
            .filter_map(|(i, test)| {
                let role = Role::from_name(&test.role)?;
                let input = &self.manifest.network(role)?.input;
                let input_values = 3 * input.width as usize * input.height as usize;
                let shape = if test.embedding {
                    self.manifest.embedding_shape()?
                } else {
                    self.manifest.output_shape(role)?
                };
                let output_values = shape.iter().product();
                Some((i, test, role, input_values, output_values))
            })
            .map(|(i, test, role, input_values, output_values)| {
                let input_field = format!("self_test[{i}].input");
                let output_field = format!("self_test[{i}].output");
                Ok(SelfTestVectors {
                    role,
                    embedding: test.embedding,
                    input: self.read_values(
                        &test.input,
                        &input_field,
                        test.input_sha256.as_deref(),
                        input_values,
                    )?,
                    output: self.read_values(
                        &test.output,
                        &output_field,
                        test.output_sha256.as_deref(),
                        output_values,
                    )?,
                    tolerance: test.tolerance,
                })
            })
            .collect()
    }

    fn read(&self, file: &str, field: &str) -> Result<(PathBuf, Vec<u8>), BundleError> {
        let path = self.directory.join(file);
        let resolved = fs::canonicalize(&path).and_then(|file| {
            let directory = fs::canonicalize(&self.directory)?;
            Ok((file, directory))
        });
        match resolved {
            Ok((file, directory)) if !file.starts_with(&directory) => {
                return Err(BundleError::Outside {
                    path,
                    field: field.to_owned(),
                });
            }
            Ok(_) => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                return Err(BundleError::Missing {
                    path,
                    field: field.to_owned(),
                });
            }
            Err(source) => return Err(BundleError::Read { path, source }),
        }
        match fs::read(&path) {
            Ok(bytes) => Ok((path, bytes)),
            Err(source) => Err(BundleError::Read { path, source }),
        }
    }

    /// A file and where it lies, checked against its hash.
    fn read_hashed(
        &self,
        file: &str,
        field: &str,
        sha256: &str,
    ) -> Result<(PathBuf, Vec<u8>), BundleError> {
        let (path, bytes) = self.read(file, field)?;
        let found = hex::encode(Sha256::digest(&bytes));
        if found != sha256 {
            return Err(BundleError::Hash {
                path,
                expected: sha256.to_owned(),
                found,
            });
        }
        Ok((path, bytes))
    }

    fn read_values(
        &self,
        file: &str,
        field: &str,
        sha256: Option<&str>,
        count: usize,
    ) -> Result<Vec<f32>, BundleError> {
        let (path, bytes) = match sha256 {
            Some(sha256) => self.read_hashed(file, field, sha256)?,
            None => self.read(file, field)?,
        };
        if bytes.len() != count * size_of::<f32>() {
            return Err(BundleError::Size {
                path,
                field: field.to_owned(),
                expected: (count * size_of::<f32>()) as u64,
                found: bytes.len() as u64,
            });
        }
        let (words, _) = bytes.as_chunks::<4>();
        Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
    }
}
