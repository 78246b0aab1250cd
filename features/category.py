"""Stored features of a product category: a vector, fitted anew each month on what was known by then."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from lockstep.define import FITTED_AT, Entity, Feature, FittedView, source

VECTOR, SIZE = "category_vector", 8
STEP = 2.0**-14  # values are multiples of it, so that the last bits, which differ between CPUs, do not show
YEAR = timedelta(days=365)
ANCHOR = date(2017, 2, 1)
"""All fits are turned towards that of what was bought before: the panel's first month."""

category = Entity("category", key="product_category", description="A category of products, such as COFFEE.")


@source(event_time="at", key=("basket_id", "product_id"), within_day=True)
def category_lines(transactions: pl.LazyFrame, products: pl.LazyFrame) -> pl.LazyFrame:
    """Return one row a line of a basket whose product has a category.

    Columns: household_id, basket_id, product_id, product_category and at.
    """
    categories = products.select("product_id", "product_category").filter(pl.col("product_category").is_not_null())
    return transactions.join(categories, on="product_id").select(
        "household_id", "basket_id", "product_id", "product_category", pl.col("transaction_timestamp").alias("at")
    )


def vectors(lines: pl.DataFrame, day: date) -> pl.DataFrame:
    """Return the vector of each category bought in the year before `day`, turned towards those of before the anchor.

    An SVD is free to flip, swap and mix its components, and from one fit to the next it does: a model that reads
    several months would read noise. So each fit is rotated as a whole to where the anchor's stands. What its vectors
    are to each other stays as it was. Without an anchor there is no fit, rather than one that fits no other.
    """
    from scipy.linalg import orthogonal_procrustes
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # sums in one order on any machine
        now = decompose(lines.filter(pl.col("event_day") >= day - YEAR))
        then = decompose(lines.filter(pl.col("event_day") < ANCHOR))
        both = now.join(then, on=category.key, maintain_order="left")
        if both.height < SIZE:
            return now.clear()
        turn, _ = orthogonal_procrustes(both[VECTOR].to_numpy(), both[f"{VECTOR}_right"].to_numpy())
        turned = now[VECTOR].to_numpy() @ turn
    rounded = np.round(turned / STEP) * STEP + 0.0  # no -0.0
    return now.with_columns(pl.Series(VECTOR, rounded, now.schema[VECTOR]))


def decompose(lines: pl.DataFrame) -> pl.DataFrame:
    """Return a vector of length 1 for each category: a truncated SVD of who buys what; none where too little is known.

    Each entry of the matrix is log(1 + lines), scaled by the size of its household and of its category.
    """
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD

    counts = lines.group_by("household_id", category.key).len().sort("household_id", category.key)
    rows, columns = (counts[c].rank("dense").to_numpy() - 1 for c in ("household_id", category.key))
    names = counts[category.key].unique().sort()
    if min(counts["household_id"].n_unique(), names.len()) <= SIZE:
        return pl.DataFrame(schema={category.key: pl.String, VECTOR: pl.Array(pl.Float64, SIZE)})
    x = np.log1p(counts["len"].to_numpy())
    x /= np.sqrt(np.bincount(rows, x)[rows] * np.bincount(columns, x)[columns])
    svd = TruncatedSVD(SIZE, algorithm="arpack", random_state=0).fit(csr_matrix((x, (rows, columns))))
    matrix = svd.components_.T * svd.singular_values_
    return pl.DataFrame({category.key: names, VECTOR: matrix / np.linalg.norm(matrix, axis=1, keepdims=True)})


category_vectors = FittedView(
    name="category_vectors",
    entities=[category],
    source=category_lines,
    fit=vectors,
    every="1mo",
    ttl_days=7,
    owner="assortment",
    description="What is bought by the same households lies in the same direction.",
    features=[
        Feature(VECTOR, pl.Array(pl.Float64, SIZE), "the category's direction, of length 1; null before its first fit"),
        Feature(f"{VECTOR}_fitted", pl.col(FITTED_AT), "the instant as of which it was fitted: its version"),
    ],
)
