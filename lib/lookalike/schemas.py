"""Every table, declared once. Each field's `comment` gives its meaning, shape and unit.

The schemas are Arrow's, so that the reader and the kernels can use them without Spark; `lookalike.spark.tables`
converts them. Column order is the contract's order.
"""

import pyarrow as pa


def _field(name: str, kind: pa.DataType, comment: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable, {"comment": comment})


def _key(name: str, kind: pa.DataType, comment: str) -> pa.Field:
    return _field(name, kind, comment, nullable=False)


EMBEDDING = pa.list_(pa.float32())
ATTRIBUTES = pa.map_(pa.string(), pa.string())
TIMESTAMP = pa.timestamp("us", tz="UTC")

MANIFEST_REQUIRED = pa.schema(
    [
        _field("image_id", pa.string(), "the shop's key of the image, unique in the manifest"),
        _field("product_id", pa.string(), "the shop's key of the product"),
        _field("category", pa.string(), "path in the category tree, such as women/dresses"),
    ]
)

MANIFEST_OPTIONAL = pa.schema(
    [
        _field("uri", pa.string(), "where the image's bytes are; exactly one of uri and content is set"),
        _field("content", pa.binary(), "the image's bytes"),
        _field("title", pa.string(), "the product's title"),
        _field("attributes", ATTRIBUTES, "the product's attributes, such as color=red"),
        _field("available", pa.bool_(), "whether the product can be bought; null means yes"),
        _field("deleted", pa.bool_(), "whether the image left the catalog; null means no"),
        _field("updated_at", TIMESTAMP, "when the image's bytes last changed"),
        _field("content_hash", pa.string(), "sha256 of the image's bytes, hex, where the shop knows it"),
        _field("embedding", EMBEDDING, "(dim,) brought by the shop; then no image is read or embedded"),
    ]
)

QUERY_REQUIRED = pa.schema([_field("query_id", pa.string(), "key of the query photo, unique in the query manifest")])

QUERY_OPTIONAL = pa.schema(
    [
        _field("uri", pa.string(), "where the photo's bytes are; exactly one of uri, content and embedding is set"),
        _field("content", pa.binary(), "the photo's bytes"),
        _field("embedding", EMBEDDING, "(dim,) of the model that is evaluated; then no photo is read or embedded"),
        _field("product_id", pa.string(), "the product that is right; at least one of this and category is set"),
        _field("category", pa.string(), "the category that is right"),
        _field("image_id", pa.string(), "the gallery image that the query is itself, which it must not find"),
        _field("attributes", ATTRIBUTES, "what to group figures by, such as view=back"),
    ]
)

IMAGES = pa.schema(
    [
        _field("image_id", pa.string(), "key with occurrence; null only where the manifest has none"),
        _key("occurrence", pa.int32(), "0; from 1 on for further manifest rows of one image_id, which are rejected"),
        _field("product_id", pa.string(), "the shop's key of the product"),
        _field("category", pa.string(), "path in the category tree"),
        _field("uri", pa.string(), "where the image's bytes are; null where the manifest carries them"),
        _field("title", pa.string(), "the product's title"),
        _field("attributes", ATTRIBUTES, "the product's attributes"),
        _key("available", pa.bool_(), "whether the product may stand in results"),
        _key("deleted", pa.bool_(), "whether the image left the catalog"),
        _field("updated_at", TIMESTAMP, "when the image's bytes last changed, as the manifest says"),
        _key("vector_id", pa.int64(), "id inside FAISS: first 60 bits of sha256(image_id)"),
        _field(
            "content_hash", pa.string(), "sha256 of the image's bytes (of the embedding's, where that was brought), hex"
        ),
        _field("model_id", pa.string(), "model of the embedding that the row's status speaks of"),
        _field("width", pa.int32(), "pixels, after EXIF orientation"),
        _field("height", pa.int32(), "pixels, after EXIF orientation"),
        _field("status", pa.string(), "embedded | reused | rejected; null between ingest and embed"),
        _field("reason", pa.string(), "why the row was rejected"),
        _key("run_id", pa.string(), "run that last changed the row"),
        _field("bucket", pa.int32(), "partition: hash of the category; null in rows of older releases"),
    ]
)

EMBEDDINGS_KEY = ("content_hash", "model_id")

EMBEDDINGS = pa.schema(
    [
        _key("content_hash", pa.string(), "key with model_id: sha256 of the image's bytes, hex"),
        _key("model_id", pa.string(), "fingerprint of architecture, weights and preprocessing"),
        _key("embedding", EMBEDDING, "(dim,) float32, L2-normalised"),
        _field("width", pa.int32(), "pixels, after EXIF orientation"),
        _field("height", pa.int32(), "pixels, after EXIF orientation"),
        _key("run_id", pa.string(), "run that computed it"),
    ]
)

PLACEHOLDERS = pa.schema(
    [
        _key("product_id", pa.string(), "key: a product whose only picture is a placeholder"),
        _key("placeholder", pa.string(), "content_hash of the placeholder, or of one nearly identical to its picture"),
        _key("run_id", pa.string(), "run that recognised it"),
    ]
)

VERSION_KEY = ("category", "version")

SHARDS = pa.schema(
    [
        _key("category", pa.string(), "key with version and shard"),
        _key(
            "version",
            pa.string(),
            "one immutable build of the category: fingerprint of inputs and settings, then `-N` for the Nth full build",
        ),
        _key("shard", pa.int32(), "number of the shard, from 0"),
        _field("path", pa.string(), "the FAISS index file, relative to the root; null in a pack"),
        _field("sha256", pa.string(), "of the index file, hex"),
        _field("size_bytes", pa.int64(), "of the index file"),
        _key("vectors_path", pa.string(), "the Arrow file of ids and float16 vectors, relative to the root"),
        _key("vectors_sha256", pa.string(), "of the vectors file, hex"),
        _key("vectors_size_bytes", pa.int64(), "of the vectors file"),
        _key("vectors_rows", pa.int64(), "images in the vectors file; more than ntotal in a pack"),
        _key("first_row", pa.int64(), "row of the vectors file at which the shard's images begin"),
        _key("ntotal", pa.int64(), "images in the shard"),
        _key("dim", pa.int32(), "dimensions of an embedding"),
        _key("metric", pa.string(), "inner_product; of L2-normalised embeddings that is cosine similarity"),
        _key("factory", pa.string(), "FAISS index factory string"),
        _key("nprobe", pa.int32(), "lists scanned per query; 0 for an exact index"),
        _key("candidates", pa.int32(), "images taken from each shard for the exact re-rank"),
        _key("model_id", pa.string(), "model of the embeddings"),
        _key("faiss_version", pa.string(), "FAISS that wrote the file"),
        _key("format_version", pa.int32(), "of the files; a reader refuses a higher one than its own"),
        _field(
            "knn_recall@10", pa.float64(), "measured over the version's shards with the recorded nprobe and re-rank"
        ),
        _field("trained_version", pa.string(), "version of the category that trained the quantizer; null for exact"),
        _field("trained_error", pa.float64(), "mean squared quantization error of a sample, when it was trained"),
        _field("trained_nprobe", pa.int32(), "nprobe of the version that trained it"),
        _field("trained_candidates", pa.int32(), "candidates of the version that trained it"),
        _field("trained_recall", pa.float64(), "knn_recall@10 of the version that trained it, with these two"),
        _key("run_id", pa.string(), "run that built it"),
    ]
)

SIMILAR_ITEMS = pa.schema(
    [
        _key("category", pa.string(), "key with version, product_id and rank"),
        _key("version", pa.string(), "version of the category"),
        _key("product_id", pa.string(), "the query product"),
        _key("rank", pa.int32(), "from 1, without gaps"),
        _key("similar_product_id", pa.string(), "the product found; available, and never the query product"),
        _key("image_id", pa.string(), "the query product's image of the best pair"),
        _key("similar_image_id", pa.string(), "the found product's image of the best pair"),
        _key("score", pa.float32(), "cosine similarity of the best pair, higher is closer"),
    ]
)

MATCH_QUERY_REQUIRED = pa.schema([_field("query_id", pa.string(), "key of the query, unique in the queries")])

MATCH_QUERY_OPTIONAL = pa.schema(
    [
        _field("uri", pa.string(), "where the photo's bytes are; exactly one of uri, content and embedding is set"),
        _field("content", pa.binary(), "the photo's bytes"),
        _field("embedding", EMBEDDING, "(dim,) of the model of what is live; then no photo is read or embedded"),
        _field("category", pa.string(), "where to search: this category and all below it; null: it is predicted"),
    ]
)

FIGURE = pa.struct(
    [
        _field("metric", pa.string(), "what was measured"),
        _field("value", pa.float64(), "null where there was nothing to measure"),
        _field("low", pa.float64(), "lower end of the 95 % confidence interval, where there is one"),
        _field("high", pa.float64(), "upper end"),
        _field("n", pa.int64(), "images that the value rests on"),
    ]
)

CATEGORY_PREDICTORS = pa.schema(
    [
        _key("path", pa.string(), "key: the predictor's file, relative to the root"),
        _key("sha256", pa.string(), "of the file, hex"),
        _key("size_bytes", pa.int64(), "of the file"),
        _key("format_version", pa.int32(), "of the file; a reader refuses a higher one than its own"),
        _key("model_id", pa.string(), "model of the embeddings that it takes; the one fitted last serves"),
        _key("inputs", pa.string(), "fingerprint of images, live versions and settings"),
        _key("dim", pa.int32(), "dimensions of an embedding"),
        _key("k", pa.int32(), "nearest images that vote"),
        _key("categories", pa.int32(), "categories that it tells apart"),
        _key("voted_only", pa.int32(), "those of them that have too few products for the classifier and the figures"),
        _key("images", pa.int64(), "images sampled; six of ten of them vote"),
        _key("classifier_temperature", pa.float64(), "by which the classifier's logits are divided"),
        _key("vote_temperature", pa.float64(), "by which the scores of the nearest images are divided"),
        _key("weight", pa.float64(), "of the classifier's probabilities against the vote's"),
        _key("temperature", pa.float64(), "by which the logarithms of the fused probabilities are divided"),
        _field(
            "figures",
            pa.list_(FIGURE),
            "on the test part alone: accuracy@1 and @3 of classifier, vote and fused; ece_before and ece_after: the "
            "expected calibration error of fused without and with temperatures; same_product_ece",
        ),
        _field(
            "same_product_slope",
            pa.float64(),
            "with the intercept, the log-odds by score that a match is the same product; null where scores don't tell",
        ),
        _field("same_product_intercept", pa.float64(), "see same_product_slope"),
        _field("same_product_reason", pa.string(), "why scores don't tell; then only equal content is exact"),
        _key("run_id", pa.string(), "run that fitted it"),
        _key("fitted_at", TIMESTAMP, "when"),
    ]
)

MATCHES = pa.schema(
    [
        _field("query_id", pa.string(), "key with occurrence and rank; null only where the query has none"),
        _field("occurrence", pa.int32(), "0; from 1 on for further queries of one query_id, which are rejected"),
        _field("rank", pa.int32(), "from 1, without gaps; 0 in the one row of a query that has no match"),
        _field("status", pa.string(), "matched | unmatched: its categories have no product to offer | rejected"),
        _field("reason", pa.string(), "why the query was rejected"),
        _field("product_id", pa.string(), "the product found; available"),
        _field("image_id", pa.string(), "its image that is closest to the query"),
        _field("category", pa.string(), "the category in which it was found"),
        _field("version", pa.string(), "the live version of that category"),
        _field("score", pa.float32(), "cosine similarity, higher is closer"),
        _field("exact", pa.bool_(), "equal content, or same_product at least as probable as match.exact_probability"),
        _field("exact_probability", pa.float64(), "that it is the same product, by its score; null if never fitted"),
        _field("category_given", pa.bool_(), "whether the query named a category; else it was predicted"),
        _field("category_probability", pa.float64(), "of the category, where it was predicted"),
        _field("model_id", pa.string(), "model of the embeddings"),
    ]
)
"""The table that `match_queries` writes, wherever it is told to: each run replaces all of it."""

EVALUATIONS = pa.schema(
    [
        _key("category", pa.string(), "key with version and metric"),
        _key("version", pa.string(), "version of the category"),
        _key(
            "metric",
            pa.string(),
            "knn_recall@10, recall@1, recall@5, recall@10, coverage, dangling, products, images, churn",
        ),
        _field("value", pa.float64(), "null where there was nothing to measure"),
        _field("low", pa.float64(), "lower end of the 95 % confidence interval, where there is one"),
        _field("high", pa.float64(), "upper end"),
        _key("n", pa.int64(), "queries that the value rests on"),
        _key("run_id", pa.string(), "run that measured it"),
        _field("against", pa.string(), "of churn: the live version that this one was compared with"),
    ]
)

QUERY_EVALUATION_KEY = ("queries_checksum", "model_id", "gallery")

_QUERY_EVALUATION = (
    _key("queries_checksum", pa.string(), "of the query manifest's files: names, sizes, Parquet footers; sha256, hex"),
    _key("model_id", pa.string(), "model of the embeddings"),
    _key("gallery", pa.string(), "fingerprint of the gallery's images, products and categories"),
    _key("relevant", pa.string(), "which gallery images are right: those of the query's `product` | `category`"),
)

QUERY_ANSWERS = pa.schema(
    [
        *_QUERY_EVALUATION,
        _key("query_id", pa.string(), "key with the four before; a query without a right image has no row"),
        _field("product_id", pa.string(), "the product that is right"),
        _field("category", pa.string(), "the category that is right"),
        _field("attributes", ATTRIBUTES, "of the query"),
        _key("right_images", pa.int64(), "how many images of the gallery are right"),
        _field("rank", pa.int32(), "place of the first right image, from 1; null where it is beyond the first 100"),
        _key("map@r", pa.float64(), "mean over the first R places of the precision at each right image"),
        _key("ndcg@10", pa.float64(), "discounted gain of the first 10 places against that of the best order"),
        _key(
            "found",
            pa.list_(pa.struct([("image_id", pa.string()), ("score", pa.float32()), ("right", pa.bool_())])),
            "the 10 nearest images, best first",
        ),
        _field("right_image_id", pa.string(), "the nearest right image"),
        _field("right_score", pa.float32(), "its score"),
        _key("run_id", pa.string(), "run that found them"),
    ]
)

QUERY_EVALUATIONS = pa.schema(
    [
        *_QUERY_EVALUATION,
        _key("grouped_by", pa.string(), "all | category | attribute, of the queries"),
        _key("group", pa.string(), "all, a category, or name=value"),
        _key(
            "metric",
            pa.string(),
            "recall@1 (which is precision@1 too), recall@5, recall@10, recall@20, map@r, ndcg@10; key with all before",
        ),
        _key("value", pa.float64(), "mean over the queries"),
        _field("low", pa.float64(), "lower end of the 95 % interval, of products drawn anew; null for one product"),
        _field("high", pa.float64(), "upper end"),
        _key("n", pa.int64(), "queries that the value rests on"),
        _field("queries", pa.string(), "name of the query manifest"),
        _field("queries_uri", pa.string(), "where it was, without secrets"),
        _field("model", pa.string(), "name of the model, as the settings have it"),
        _key("run_id", pa.string(), "run that measured it"),
        _key("measured_at", TIMESTAMP, "when"),
    ]
)

_ORIGIN = (
    _field("who", pa.string(), "user that ran the job"),
    _field("why", pa.string(), "reason, where one was given"),
    _field("manifest", pa.string(), "manifest that the version was published from, without secrets"),
    _field("manifest_checksum", pa.string(), "of its files' names, sizes and Parquet footers: sha256, hex"),
    _field("code_version", pa.string(), "of this library, with the commit where it ran from a checkout"),
)

PUBLICATIONS = pa.schema(
    [
        _key("category", pa.string(), "key: one live version per category"),
        _key("version", pa.string(), "the live version"),
        _field("replaced_version", pa.string(), "what was live before; null at first"),
        _key("model_id", pa.string(), "model of the embeddings"),
        _key("format_version", pa.int32(), "of tables and files; a reader refuses a higher one than its own"),
        _key("shards_table_version", pa.int64(), "Delta version of `shards` when it was published"),
        _key("similar_items_table_version", pa.int64(), "Delta version of `similar_items` when it was published"),
        _key("published_at", TIMESTAMP, "when"),
        _key("run_id", pa.string(), "run that published it"),
        _field("action", pa.string(), "publish | rollback; withdraw for the moment until the row leaves the table"),
        *_ORIGIN,
        _field("forced", pa.bool_(), "whether it went live whatever the gate says; `why` tells the reason"),
    ]
)

AUDIT = pa.schema(
    [
        _key("at", TIMESTAMP, "when"),
        _key("action", pa.string(), "publish | rollback | withdraw | pin | unpin | cleanup"),
        _field("category", pa.string(), "null where cleanup found only leftovers of no version"),
        _field("version", pa.string(), "what became live, was withdrawn, pinned, unpinned or removed"),
        _field("replaced_version", pa.string(), "what stopped being live"),
        _field("model_id", pa.string(), "model of the version's embeddings"),
        _key("run_id", pa.string(), "run that did it; key with action, category and version"),
        *_ORIGIN,
    ]
)

RUNS = pa.schema(
    [
        _key("run_id", pa.string(), "key with stage"),
        _key(
            "stage",
            pa.string(),
            "ingest, embed, placeholders, build_index, similar_items, evaluate, evaluate_queries, compare_models, "
            "publish, rollback, cleanup, training_set, fine_tune, fit_pca, "
            "fit_categories, match_queries",
        ),
        _key("started_at", TIMESTAMP, "when the stage started"),
        _key("seconds", pa.float64(), "how long it took"),
        _key("counts", pa.map_(pa.string(), pa.int64()), "what went in and came out, by name"),
        _field("images_per_s", pa.float64(), "images per second, in stages that go through images"),
        _field(
            "decisions",
            pa.map_(pa.string(), pa.string()),
            "build_index: by category with a trained index, whether its quantizer was reused, with the figures; "
            "placeholders: what they were looked for in",
        ),
        _field("manifest", pa.string(), "ingest: the manifest that it took in, without secrets"),
        _field("manifest_checksum", pa.string(), "of its files' names, sizes and Parquet footers: sha256, hex"),
    ]
)

_STORED = "JPEG of the model's input region, a square somewhat larger than the model's input"

TRAINING_PICTURES = pa.schema(
    [
        _key("image_id", pa.string(), "key: one image of each content"),
        _key("product_id", pa.string(), "the shop's key of the product"),
        _key("category", pa.string(), "path in the category tree"),
        _key(
            "labels",
            pa.map_(pa.string(), pa.int32()),
            "by kind (product, category, an attribute) the number of its class, from 0; those in training come first",
        ),
        _field("split", pa.string(), "train | validation; null where the picture can't be had now"),
        _field("picture", pa.binary(), _STORED),
        _field("reason", pa.string(), "why it can't"),
    ]
)

TRAINING_QUERIES = pa.schema(
    [
        _key("query_id", pa.string(), "key: a query of the click log whose picture is none of the catalog's"),
        _key("split", pa.string(), "train | validation"),
        _key("picture", pa.binary(), _STORED),
    ]
)

TRAINING_TRIPLETS = pa.schema(
    [
        _field("query_id", pa.string(), "the query, where its picture is none of the catalog's"),
        _field("query_image_id", pa.string(), "the query, where it is a picture of the catalog's"),
        _key("positive_image_id", pa.string(), "image of a product that was clicked"),
        _key("negative_image_id", pa.string(), "image of a product that was seen and not clicked"),
        _key("split", pa.string(), "train | validation"),
    ]
)

CLICKS_REQUIRED = pa.schema(
    [
        _field("query_id", pa.string(), "one search, with all that it showed"),
        _field("product_id", pa.string(), "a product that was shown"),
        _field("clicked", pa.bool_(), "whether it was clicked"),
    ]
)

CLICKS_OPTIONAL = pa.schema(
    [
        _field("uri", pa.string(), "where the query's picture is"),
        _field("content", pa.binary(), "the bytes of the query's picture"),
        _field("query_image_id", pa.string(), "the query, where it is a picture of the catalog's"),
        _field("position", pa.int32(), "place among the products shown, from 1"),
        _field("at", TIMESTAMP, "when it was shown"),
    ]
)

TABLES = {
    "images": IMAGES,
    "embeddings": EMBEDDINGS,
    "placeholders": PLACEHOLDERS,
    "shards": SHARDS,
    "similar_items": SIMILAR_ITEMS,
    "category_predictors": CATEGORY_PREDICTORS,
    "evaluations": EVALUATIONS,
    "query_answers": QUERY_ANSWERS,
    "query_evaluations": QUERY_EVALUATIONS,
    "publications": PUBLICATIONS,
    "audit": AUDIT,
    "runs": RUNS,
}
"""Delta tables below `<root>/tables/`, by name."""

PARTITIONED_BY = {"images": "bucket"}
"""Partition columns of those that have one: a change of few categories leaves most of their files alone."""

WITHOUT_IMAGES = frozenset(
    {"audit", "category_predictors", "evaluations", "publications", "query_evaluations", "runs", "shards"}
)
"""Those that grow with categories and runs, but not with images: they are small as a rule."""
