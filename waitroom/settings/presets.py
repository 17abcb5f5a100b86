"""Presets of bypass rules: the return and webhook paths of payment providers' plugins, and of shops.

An entry defines what a request may contain besides its path. PHP shops accept parameters of the query and of a form for
another page, or for an order, on any path. For shops that do, an entry allows only parameters that the plugin itself
uses, and no form, or only one too short for an order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

ANY_BODY: Final = "*"
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class PresetEntry:
    """Requests of one kind that a preset lets through.

    Attributes:
        path: A regular expression (RE2) for the whole path.
        methods: The methods.
        source: The documentation or definition of the path.
        query: The only parameters that the query may contain; None for any.
        required: Required parameters, as "name=value".
        body: The required media type of the body, `ANY_BODY` for any; empty if a body isn't allowed.
        most_body: The maximum size of a body in bytes; None for no limit.
    """

    path: str
    methods: tuple[str, ...]
    source: str
    query: tuple[str, ...] | None = ()
    required: tuple[str, ...] = ()
    body: str = ""
    most_body: int | None = None


_READS = ("GET", "HEAD")
_POST = ("POST",)
_BOTH = ("GET", "HEAD", "POST")
# "id=" and a Mollie identifier: shorter than any form that a shop would accept as an order.
_MOLLIE_BODY = 32

_GITHUB = "https://github.com/"
_WOO_STRIPE = _GITHUB + "woocommerce/woocommerce-gateway-stripe/blob/develop/includes/class-wc-stripe-helper.php"
_WOO_PAYPAL = _GITHUB + "woocommerce/woocommerce-paypal-payments/blob/trunk/modules/ppcp-webhooks/src/"
_WOO_PAYPAL += "IncomingWebhookEndpoint.php"
_WOO_MOLLIE = _GITHUB + "mollie/WooCommerce/blob/develop/src/Payment/Webhooks/RestApi.php"
_WOO_KLARNA = _GITHUB + "krokedil/klarna-payments-for-woocommerce"
_WOO_KCO = _GITHUB + "krokedil/klarna-checkout-for-woocommerce/blob/master/classes/requests/helpers/"
_WOO_KCO += "class-kco-merchant-urls.php"
_PRESTA = r"(/[a-z]{2}(-[a-z]{2})?)?"  # the language


def _presta_module(module: str, controller: str, source: str, body: str, most_body: int | None) -> list[PresetEntry]:
    """Build entries for a module's page in PrestaShop, by its pretty and its plain address."""
    pretty = PresetEntry(f"{_PRESTA}/module/{module}/{controller}", _POST, source, (), (), body, most_body)
    names = ("fc", "module", "controller", "id_lang")
    required = ("fc=module", f"module={module}", f"controller={controller}")
    return [pretty, PresetEntry(r"/(index\.php)?", _POST, source, names, required, body, most_body)]


PRESETS: Final[Mapping[str, tuple[PresetEntry, ...]]] = MappingProxyType(
    {
        "stripe": (
            PresetEntry("/", _POST, _WOO_STRIPE, ("wc-api",), ("wc-api=wc_stripe",), _JSON),
            PresetEntry("/wc-api/wc_stripe/?", _POST, _WOO_STRIPE, (), (), _JSON),
            *_presta_module(
                "stripe_official",
                "webhook",
                _GITHUB + "202-ecommerce/stripe_official/blob/master/classes/StripeWebhook.php",
                _JSON,
                None,
            ),
        ),
        "adyen": (
            PresetEntry(
                "/adyen/webhook(/index)?/?",
                _POST,
                _GITHUB + "Adyen/adyen-magento2/blob/main/Controller/Webhook/Index.php",
                None,
                (),
                _JSON,
            ),
            PresetEntry(
                "/adyen/return(/index)?/?",
                _BOTH,
                _GITHUB + "Adyen/adyen-magento2/blob/main/Controller/Return/Index.php",
                None,
                (),
                ANY_BODY,
            ),
            PresetEntry(
                "/store-api/adyen/notification/[0-9a-f]{32}",
                _POST,
                _GITHUB + "Adyen/adyen-shopware6/blob/develop/src/Controller/StoreApi/Notification/"
                "NotificationController.php",
                None,
                (),
                _JSON,
            ),
            *_presta_module(
                "adyenofficial",
                "notifications",
                _GITHUB + "Adyen/adyen-prestashop/blob/master/controllers/front/Notifications.php",
                _JSON,
                None,
            ),
        ),
        "paypal": (
            PresetEntry("/wp-json/paypal/v1/incoming/?", _POST, _WOO_PAYPAL, (), (), _JSON),
            PresetEntry(
                "/paypal/ipn(/index)?/?",
                _POST,
                _GITHUB + "magento/magento2/blob/2.4-develop/app/code/Magento/Paypal/Controller/Ipn/Index.php",
                None,
                (),
                _FORM,
            ),
            PresetEntry(
                "/api/_action/paypal/webhook/execute",
                _POST,
                _GITHUB + "shopware/SwagPayPal/blob/trunk/src/Webhook/WebhookController.php",
                None,
                (),
                _JSON,
            ),
        ),
        "mollie": (
            PresetEntry(
                "/wp-json/mollie/v1/webhook/?",
                _POST,
                _WOO_MOLLIE,
                ("mollie_webhook_secret",),
                (),
                _FORM,
                _MOLLIE_BODY,
            ),
            PresetEntry(
                "/mollie/checkout/webhook/?",
                _BOTH,
                _GITHUB + "mollie/magento2/blob/master/Controller/Checkout/Webhook.php",
                None,
                (),
                _FORM,
            ),
            PresetEntry(
                "/mollie/checkout/process/?",
                _READS,
                _GITHUB + "mollie/magento2/blob/master/Controller/Checkout/Process.php",
                None,
            ),
            PresetEntry(
                "(/api)?/mollie/webhook/[0-9a-f]{32}",
                _BOTH,
                _GITHUB + "mollie/Shopware6",
                None,
                (),
                _FORM,
            ),
            PresetEntry(
                "/mollie/payment/[0-9a-f]{32}",
                _BOTH,
                _GITHUB + "mollie/Shopware6",
                None,
                (),
                _FORM,
            ),
            *_presta_module(
                "mollie",
                "webhook",
                _GITHUB + "mollie/PrestaShop/blob/master/controllers/front/webhook.php",
                _FORM,
                _MOLLIE_BODY,
            ),
        ),
        "klarna": (
            PresetEntry("/wc-api/KP_WC_AUTHORIZATION/?", _POST, _WOO_KLARNA, (), (), _JSON),
            PresetEntry(
                "/wc-api/KCO_WC_Push/?",
                _POST,
                _WOO_KCO,
                ("kco-action", "kco_wc_order_id", "kco_session_id", "kco_order_id"),
                (),
                _JSON,
            ),
        ),
        "woocommerce": (
            PresetEntry(
                "(/[a-z0-9_-]+){1,3}/order-received/[0-9]+/?",
                _READS,
                "https://woocommerce.com/document/woocommerce-endpoints/",
                (
                    *("key", "utm_nooverride", "filter_flag", "token", "PayerID", "wc_payment_method", "_wpnonce"),
                    *("order_id", "save_payment_method", "redirect_status", "payment_intent"),
                    *("payment_intent_client_secret",),
                ),
            ),
            PresetEntry(
                "/wc-api/[A-Za-z0-9_-]+/?",
                _BOTH,
                "https://developer.woocommerce.com/docs/features/payments/payment-gateway-api/",
                ("key", "order", "order_id", "id", "token"),
                (),
                _JSON,
            ),
        ),
        "magento": (
            PresetEntry(
                "/checkout/onepage/(success|failure)/?",
                _READS,
                _GITHUB + "magento/magento2/blob/2.4-develop/app/code/Magento/Checkout/Controller/Onepage/Success.php",
                None,
            ),
            PresetEntry(
                "/rest(/[a-z0-9_]+)?/V1/orders(/[0-9]+)?",
                _READS,
                "https://developer.adobe.com/commerce/webapi/rest/",
                None,
            ),
            PresetEntry(
                "/rest(/[a-z0-9_]+)?/V1/order/[0-9]+/(invoice|ship)",
                _POST,
                "https://developer.adobe.com/commerce/webapi/rest/tutorials/orders/",
                (),
                (),
                _JSON,
            ),
        ),
        "prestashop": (
            PresetEntry(
                f"{_PRESTA}/order-confirmation",
                _READS,
                _GITHUB + "PrestaShop/PrestaShop/blob/develop/controllers/front/OrderConfirmationController.php",
                ("id_cart", "id_module", "id_order", "key"),
            ),
            PresetEntry(
                r"/(index\.php)?",
                _READS,
                _GITHUB + "PrestaShop/PrestaShop/blob/develop/controllers/front/OrderConfirmationController.php",
                ("controller", "id_cart", "id_module", "id_order", "key", "id_lang"),
                ("controller=order-confirmation",),
            ),
        ),
        "shopware": (
            PresetEntry(
                "/payment/finalize-transaction/?",
                _BOTH,
                _GITHUB + "shopware/shopware/blob/trunk/src/Core/Checkout/Payment/Controller/PaymentController.php",
                None,
                (),
                ANY_BODY,
            ),
            PresetEntry(
                "/checkout/finish/?",
                _READS,
                _GITHUB + "shopware/shopware/blob/trunk/src/Storefront/Controller/CheckoutController.php",
                ("orderId", "changedPayment", "paymentFailed"),
            ),
        ),
    }
)
