"""The geometry of ADQL as SQL: points, circles, boxes and polygons on the sphere, ICRS degrees, borders included.

Every number may be a column or an expression, so all is written as SQL text. A box is bounded by the four great circles
that cross the arms of its cross at their ends at right angles. A polygon has great circles as sides and lies within a
hemisphere around the mean of its corners; which way round they are listed does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from galsearch.errors import QueryError

Vector = tuple[str, str, str]
BAND = 1e-9  # degrees by which the band of declinations is wider than the circle, for rounding


@dataclass(frozen=True)
class Point:
    """A position: right ascension and declination."""

    ra: str
    dec: str

    def unit(self) -> Vector:
        """Return x, y and z of its unit vector."""
        numbers = known(self.ra, self.dec)
        if numbers is not None:
            ra, dec = map(math.radians, numbers)
            return _text(math.cos(dec) * math.cos(ra)), _text(math.cos(dec) * math.sin(ra)), _text(math.sin(dec))
        across, up = f"radians({self.ra})", f"radians({self.dec})"
        return f"(cos({up}) * cos({across}))", f"(cos({up}) * sin({across}))", f"sin({up})"


@dataclass(frozen=True)
class Circle:
    """All points within a radius of a center."""

    center: Point
    radius: str


@dataclass(frozen=True)
class Box:
    """A cross of two arms, across in right ascension and up in declination."""

    center: Point
    width: str
    height: str

    def corners(self) -> Polygon:
        """Return the polygon of its four corners."""
        return Polygon(tuple(self._corner(x, y) for x, y in (("-", "-"), ("", "-"), ("", ""), ("-", ""))))

    def _corner(self, x: str, y: str) -> Point:
        """Return a corner by the gnomonic projection from the center, in which its sides are straight lines."""
        numbers = known(self.center.ra, self.center.dec, self.width, self.height)
        if numbers is not None:
            return _numeric_corner(numbers, -1 if x else 1, -1 if y else 1)
        xi, eta = f"({x}tan(radians(({self.width}) / 2)))", f"({y}tan(radians(({self.height}) / 2)))"
        sin, cos = f"sin(radians({self.center.dec}))", f"cos(radians({self.center.dec}))"
        down = f"({cos} - {eta} * {sin})"
        ra = f"({self.center.ra} + degrees(atan2({xi}, {down})))"
        dec = f"degrees(atan2({sin} + {eta} * {cos}, sqrt({xi} * {xi} + {down} * {down})))"
        return Point(ra, dec)


@dataclass(frozen=True)
class Polygon:
    """Three corners or more."""

    corners: tuple[Point, ...]

    def edges(self) -> list[tuple[Point, Point]]:
        """Return each side as its two ends."""
        return [(one, self.corners[(number + 1) % len(self.corners)]) for number, one in enumerate(self.corners)]


def known(*texts: str) -> list[float] | None:
    """Return SQL texts as numbers where all of them are."""
    try:
        return [float(text.replace(" ", "").strip("()")) for text in texts]
    except ValueError:
        return None


def _text(number: float) -> str:
    return f"({number!r})" if number < 0 else repr(number)


def _numeric_corner(numbers: list[float], x: int, y: int) -> Point:
    ra, dec, width, height = map(math.radians, numbers)
    xi, eta = x * math.tan(width / 2), y * math.tan(height / 2)
    down = math.cos(dec) - eta * math.sin(dec)
    across = math.degrees(ra + math.atan2(xi, down))
    return Point(
        _text(across), _text(math.degrees(math.atan2(math.sin(dec) + eta * math.cos(dec), math.hypot(xi, down))))
    )


Shape = Point | Circle | Box | Polygon


def separation(one: Point, other: Point) -> str:
    """Return the angle between two points in degrees."""
    if known(one.ra, one.dec, other.ra, other.dec) is not None:
        a, b = one.unit(), other.unit()
        across = math.hypot(*(float(part.strip("()")) for part in _cross_product(a, b)))
        return _text(math.degrees(math.atan2(across, float(_dot(a, b).strip("()")))))
    return f"(separation_arcsec({one.ra}, {one.dec}, {other.ra}, {other.dec}) / 3600.0)"


def contains(inner: Shape, outer: Shape) -> str:
    """Return the condition that a shape lies within another one."""
    if isinstance(outer, Point):
        raise QueryError("CONTAINS has a point as its second argument, which contains nothing; exchange the two")
    if isinstance(inner, Point):
        return _holds(outer, inner)
    if isinstance(inner, Circle) and isinstance(outer, Circle):
        return f"{separation(inner.center, outer.center)} + ({inner.radius}) <= ({outer.radius})"
    if isinstance(inner, Circle):
        sides = _edges_of(outer)
        clear = " AND ".join(f"{_to_arc(inner.center, *side)} >= ({inner.radius})" for side in sides)
        return f"({_holds(outer, inner.center)} AND {clear})"
    corners = [corner for corner, _ in _edges_of(inner)]
    within = " AND ".join(_holds(outer, corner) for corner in corners)
    if isinstance(outer, Circle):
        return f"({within})"
    return f"({within} AND NOT ({_cross(_edges_of(inner), _edges_of(outer))}))"


def intersects(one: Shape, other: Shape) -> str:
    """Return the condition that two shapes have a point in common."""
    if isinstance(other, Point):
        one, other = other, one
    if isinstance(one, Point):
        if isinstance(other, Point):
            return f"{separation(one, other)} <= 0"
        return _holds(other, one)
    if isinstance(one, Circle) and isinstance(other, Circle):
        return f"{separation(one.center, other.center)} <= ({one.radius}) + ({other.radius})"
    if isinstance(other, Circle):
        one, other = other, one
    if isinstance(one, Circle):
        near = " OR ".join(f"{_to_arc(one.center, *side)} <= ({one.radius})" for side in _edges_of(other))
        return f"({_holds(other, one.center)} OR {near})"
    mine, theirs = _edges_of(one), _edges_of(other)
    within = [_holds(other, mine[0][0]), _holds(one, theirs[0][0])]
    return f"({' OR '.join(within)} OR {_cross(mine, theirs)})"


def area(shape: Shape) -> str:
    """Return the area in square degrees of a circle or a box; that of a polygon is not worked out."""
    if isinstance(shape, Circle):
        return f"(2 * pi() * (1 - cos(radians({shape.radius}))) * pow(180 / pi(), 2))"
    if isinstance(shape, Box):  # a rectangular pyramid
        half = f"sin(radians(({shape.width}) / 2)) * sin(radians(({shape.height}) / 2))"
        return f"(4 * asin({half}) * pow(180 / pi(), 2))"
    raise QueryError("AREA takes a circle or a box")


def center(shape: Shape) -> Point:
    """Return the middle of a circle or a box."""
    if isinstance(shape, (Circle, Box)):
        return shape.center
    if isinstance(shape, Point):
        return shape
    x, y, z = _mean(shape)
    return Point(f"fmod(degrees(atan2({y}, {x})) + 360, 360)", f"degrees(atan2({z}, sqrt(pow({x}, 2) + pow({y}, 2))))")


def value(shape: Shape) -> str:
    """Return a shape as a list of degrees, as DALI writes it: of a box that of its corners."""
    if isinstance(shape, Point):
        numbers = [shape.ra, shape.dec]
    elif isinstance(shape, Circle):
        numbers = [shape.center.ra, shape.center.dec, shape.radius]
    else:
        corners = shape.corners if isinstance(shape, Polygon) else shape.corners().corners
        numbers = [number for corner in corners for number in (corner.ra, corner.dec)]
    return f"CAST([{', '.join(numbers)}] AS DOUBLE[{len(numbers)}])"


def _holds(shape: Shape, point: Point) -> str:
    if isinstance(shape, Circle):
        low, high = (f"({shape.center.dec}) {sign} ({shape.radius}) {sign} {BAND}" for sign in "-+")
        return f"(({point.dec}) BETWEEN {low} AND {high} AND {separation(point, shape.center)} <= ({shape.radius}))"
    if isinstance(shape, Box):
        return _in_box(shape, point)
    assert isinstance(shape, Polygon)  # a point holds nothing, and is refused before
    return _in_polygon(shape, point)


def _in_box(box: Box, point: Point) -> str:
    """Compare the angles of a point from the plane of each arm, seen along it."""
    delta = f"radians(({point.ra}) - ({box.center.ra}))"
    sin0, cos0 = f"sin(radians({box.center.dec}))", f"cos(radians({box.center.dec}))"
    sin, cos = f"sin(radians({point.dec}))", f"cos(radians({point.dec}))"
    ahead = f"({sin0} * {sin} + {cos0} * {cos} * cos({delta}))"
    east = f"({cos} * sin({delta}))"
    north = f"({cos0} * {sin} - {sin0} * {cos} * cos({delta}))"
    across = f"abs(degrees(atan2({east}, {ahead}))) <= ({box.width}) / 2 + {BAND}"
    return f"({across} AND abs(degrees(atan2({north}, {ahead}))) <= ({box.height}) / 2 + {BAND})"


def _in_polygon(polygon: Polygon, point: Point) -> str:
    """Add up the angles that the sides subtend: a whole turn from inside, none from outside."""
    here, turns = point.unit(), []
    for first, second in polygon.edges():
        a, b = first.unit(), second.unit()
        turns.append(f"atan2({_dot(here, _cross_product(a, b))}, {_dot(a, b)} - {_dot(here, a)} * {_dot(here, b)})")
    return f"(abs({' + '.join(turns)}) > pi() AND {_dot(here, _mean(polygon))} > 0)"


def _azimuth(at: Point, to: Point) -> str:
    """Return the direction of a point as seen from another, in radians."""
    delta = f"radians(({to.ra}) - ({at.ra}))"
    sin1, cos1 = f"sin(radians({at.dec}))", f"cos(radians({at.dec}))"
    sin2, cos2 = f"sin(radians({to.dec}))", f"cos(radians({to.dec}))"
    return f"atan2(sin({delta}) * {cos2}, {cos1} * {sin2} - {sin1} * {cos2} * cos({delta}))"


def _mean(polygon: Polygon) -> Vector:
    x, y, z = (_sum(parts) for parts in zip(*(corner.unit() for corner in polygon.corners), strict=True))
    return x, y, z


def _sum(parts: Sequence[str]) -> str:
    numbers = known(*parts)
    return f"({' + '.join(parts)})" if numbers is None else _text(math.fsum(numbers))


def _product(*parts: str) -> str:
    numbers = known(*parts)
    return " * ".join(parts) if numbers is None else _text(math.prod(numbers))


def _dot(a: Vector, b: Vector) -> str:
    return _sum([_product(one, other) for one, other in zip(a, b, strict=True)])


def _cross_product(a: Vector, b: Vector) -> Vector:
    x, y, z = (
        _sum([_product(a[one], b[other]), _product("(-1)", a[other], b[one])])
        for one, other in ((1, 2), (2, 0), (0, 1))
    )
    return x, y, z


def _edges_of(shape: Shape) -> list[tuple[Point, Point]]:
    assert isinstance(shape, (Box, Polygon))
    return (shape.corners() if isinstance(shape, Box) else shape).edges()


def _to_arc(point: Point, start: Point, end: Point) -> str:
    """Return the distance in degrees of a point from a side."""
    whole, away = separation(start, end), f"radians({separation(start, point)})"
    angle = f"({_azimuth(start, point)} - {_azimuth(start, end)})"
    along = f"degrees(atan2(sin({away}) * cos({angle}), cos({away})))"
    beside = f"abs(degrees(asin(greatest(-1, least(1, sin({away}) * sin({angle}))))))"
    ends = f"least({separation(start, point)}, {separation(end, point)})"
    return f"(CASE WHEN {along} BETWEEN 0 AND {whole} THEN {beside} ELSE {ends} END)"


def _cross(mine: list[tuple[Point, Point]], theirs: list[tuple[Point, Point]]) -> str:
    """Return the condition that a side of one crosses a side of the other."""
    return " OR ".join(_crosses(one, other) for one in mine for other in theirs)


def _crosses(one: tuple[Point, Point], other: tuple[Point, Point]) -> str:
    (a, b), (c, d) = ([point.unit() for point in side] for side in (one, other))
    mine, theirs = _cross_product(a, b), _cross_product(c, d)
    apart = f"{_dot(mine, c)} * {_dot(mine, d)} < 0 AND {_dot(theirs, a)} * {_dot(theirs, b)} < 0"
    ahead = _dot(_added(a, b), _added(c, d))
    return f"({apart} AND {ahead} > 0)"


def _added(a: Vector, b: Vector) -> Vector:
    x, y, z = (_sum(pair) for pair in zip(a, b, strict=True))
    return x, y, z
