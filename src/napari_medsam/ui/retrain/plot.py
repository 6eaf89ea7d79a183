"""The live plot of a run: loss and validation DSC of each epoch, drawn with Qt itself, so it costs no import."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_medsam.model.decoder_file import CurvePoint

LOSS, VALIDATION = QColor(86, 180, 233), QColor(230, 159, 0)
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 18, 16
Series = list[tuple[int, float]]


class CurvePlot(QWidget):  # type: ignore[misc]
    """Two graphs side by side over the epochs; the best epoch has a line in both."""

    def __init__(self) -> None:
        super().__init__()
        self._curve: tuple[CurvePoint, ...] = ()
        self._epochs, self._best = 0, 0
        self.setMinimumHeight(130)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Loss of the training objects, DSC of the validation cases; the line is the epoch kept"
        )

    def sizeHint(self) -> QSize:
        return QSize(300, 130)

    def show_curve(self, curve: Sequence[CurvePoint], epochs: int, best: int) -> None:
        """Draw these epochs of so many; best: the epoch that is kept, 0 for none."""
        now = (tuple(curve), epochs, best)
        if now != (self._curve, self._epochs, self._best):
            self._curve, self._epochs, self._best = now
            self.update()

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        losses = [(point.epoch, point.loss) for point in self._curve]
        found = [(point.epoch, point.validation) for point in self._curve if point.validation is not None]
        half = self.width() / 2
        self._graph(painter, QRectF(0, 0, half, self.height()), "Loss", losses, LOSS)
        title = "Validation DSC" if found or not losses else "Validation DSC: no cases to validate on"
        self._graph(painter, QRectF(half, 0, half, self.height()), title, found, VALIDATION)
        painter.end()

    def _graph(self, painter: QPainter, area: QRectF, title: str, values: Series, color: QColor) -> None:
        ink = self.palette().windowText().color()
        inner = area.adjusted(LEFT, TOP, -RIGHT, -BOTTOM)
        painter.setPen(ink)
        painter.drawText(area.adjusted(4, 0, 0, 0), Qt.AlignmentFlag.AlignTop, title)
        painter.setPen(QPen(QColor(ink.red(), ink.green(), ink.blue(), 90), 1))
        painter.drawRect(inner)
        if not values:
            return
        low, high = limits([value for _, value in values])
        last = max(self._epochs, values[-1][0], 2)

        def place(epoch: int, value: float) -> QPointF:
            across = (epoch - 1) / (last - 1)
            return QPointF(
                inner.left() + across * inner.width(),
                inner.bottom() - (value - low) / (high - low) * inner.height(),
            )

        if self._best:
            across = place(self._best, low).x()
            painter.drawLine(QPointF(across, inner.top()), QPointF(across, inner.bottom()))
        self._scale(painter, inner, ink, (low, high), last)
        painter.setPen(QPen(color, 2))
        painter.drawPolyline(QPolygonF([place(*point) for point in values]))
        painter.setBrush(color)
        painter.drawEllipse(place(*values[-1]), 2.5, 2.5)
        painter.setBrush(Qt.BrushStyle.NoBrush)

    def _scale(
        self, painter: QPainter, inner: QRectF, ink: QColor, ends: tuple[float, float], last: int
    ) -> None:
        painter.setPen(ink)
        right = Qt.AlignmentFlag.AlignRight
        for value, level in ((ends[1], inner.top()), (ends[0], inner.bottom() - 12)):
            painter.drawText(QRectF(inner.left() - LEFT, level - 2, LEFT - 4, 14), right, f"{value:.2f}")
        painter.drawText(QRectF(inner.left(), inner.bottom() + 1, 30, 14), Qt.AlignmentFlag.AlignLeft, "1")
        painter.drawText(QRectF(inner.right() - 60, inner.bottom() + 1, 60, 14), right, f"epoch {last}")


def limits(values: Sequence[float]) -> tuple[float, float]:
    """The lower and upper end of an axis that shows all values: apart, and rounded to hundredths."""
    low, high = min(values), max(values)
    room = max(0.05 * (high - low), 0.01)
    return int(100 * (low - room)) / 100, int(100 * (high + room) + 1) / 100
