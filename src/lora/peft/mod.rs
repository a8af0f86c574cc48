//! Adapters in the files of Hugging Face's [peft](https://huggingface.co/docs/peft).
//!
//! A folder holds `adapter_config.json` and `adapter_model.safetensors`. [`Adapters`] has the contents of both:
//!
//! ```no_run
//! use gradus::lora::{Config, peft::{AdapterConfig, Adapters}};
//! use gradus::prelude::*;
//! # use std::collections::BTreeMap;
//! # use rand::SeedableRng;
//! # let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
//! # let mut model = BTreeMap::from([("layers.0.q_proj.weight", ndarray::Array2::<f32>::eye(4))]);
//!
//! // An adapter from elsewhere: for deployment, in the weights of your model…
//! let adapters = Adapters::<f32>::load("adapter")?;
//! adapters.merge_into(&mut model)?;
//! // … or beside them, layer by layer.
//! let query = &adapters.modules["layers.0.q_proj"];
//! # let (weight, x) = (ndarray::Array2::eye(4), ndarray::Array2::eye(4));
//! let y = query.forward(&weight, &x)?;
//!
//! // Your own, to be trained and saved.
//! let config = AdapterConfig::new(Config::new(8, 16.0), ["q_proj", "v_proj"]);
//! let mut adapters = Adapters::for_model(config, &model, &mut rng)?;
//! # let grads = (adapters.modules.clone(), adapters.saved.clone());
//! AdamW::new(1e-4).step(&mut (&mut adapters.modules, &mut adapters.saved), &grads)?;
//! adapters.save("my-adapter")?;
//! # Ok::<(), gradus::Error>(())
//! ```
//!
//! # Tensors
//! The tensors of the module `layers.0.query` have the names `base_model.model.layers.0.query.` and:
//!
//! | layer | tensors | shapes |
//! |---|---|---|
//! | linear | `lora_A.weight`, `lora_B.weight` | (r, in), (out, r) |
//! | convolution | the same | (r, channels, kernel…), (out, r, 1…) |
//! | embedding | `lora_embedding_A`, `lora_embedding_B` | (r, tokens), (width, r) |
//! | each with DoRA | `lora_magnitude_vector` | (out), of a convolution (1, out, 1…) |
//! | saved whole | its own, such as `weight` | as in the model |
//!
//! # Names
//! A tensor of your model belongs to the module whose name is its path, or its path without the last segment `weight`. `peft` names modules as the PyTorch model
//! does, such as `model.layers.0.self_attn.q_proj` in Llama. If your tree has other names, use a `BTreeMap` of views with these names.

mod adapters;
mod config;
mod file;
mod names;

pub use adapters::Adapters;
pub use config::AdapterConfig;
pub use file::FileType;
pub use names::Targets;
